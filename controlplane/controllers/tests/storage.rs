//! Claims and volumes: stories, and properties that hold in whatever order and with however old a view they are looked at.

mod world;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_controllers::volume_claim::Surroundings;
use shoal_controllers::{Action, ephemeral_volume, volume, volume_claim};
use world::World;

/// What the API adds to what a user makes.
fn protected(mut object: Value, finalizer: &str) -> Value {
    object["metadata"]["finalizers"] = json!([finalizer]);
    object
}

fn claim(name: &str, class: &str, size: u32) -> Value {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "d"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                 "resources": {"requests": {"storage": format!("{size}Gi")}}}, "status": {"phase": "Pending"}});
    protected(claim, "kubernetes.io/pvc-protection")
}

fn made_volume(name: &str, class: &str, size: u32, policy: &str) -> Value {
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
        "capacity": {"storage": format!("{size}Gi")}, "hostPath": {"path": "/x"},
        "persistentVolumeReclaimPolicy": policy}, "status": {"phase": "Pending"}});
    protected(volume, "kubernetes.io/pv-protection")
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
           "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": "Delete"})
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name},
           "annotations": {"shoal.dev/volumes-directory": "/data/volumes"}}})
}

fn pod(name: &str, claim: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "d"}, "spec": {"nodeName": node,
           "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}})
}

fn look_at_claim(world: &World, claim: &PersistentVolumeClaim) -> Vec<Action> {
    let volumes: Vec<PersistentVolume> = world.all("PersistentVolume");
    let classes: Vec<StorageClass> = world.all("StorageClass");
    let (nodes, pods): (Vec<Node>, Vec<Pod>) = (world.all("Node"), world.all("Pod"));
    let around = Surroundings {
        volumes: &volumes.iter().collect::<Vec<_>>(),
        classes: &classes.iter().collect::<Vec<_>>(),
        nodes: &nodes.iter().collect::<Vec<_>>(),
        pods: &pods.iter().collect::<Vec<_>>(),
    };
    volume_claim::reconcile(claim, around)
}

fn look_at_volume(world: &World, found: &PersistentVolume) -> Vec<Action> {
    let name = found.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|claim| claim.name.clone());
    let claims = claims(world);
    volume::reconcile(found, claims.iter().find(|claim| claim.metadata.name == name), world.now)
}

fn claims(world: &World) -> Vec<PersistentVolumeClaim> {
    world.all("PersistentVolumeClaim")
}

fn volumes(world: &World) -> Vec<PersistentVolume> {
    world.all("PersistentVolume")
}

/// What is decided about the `index`th of all claims and volumes, as `view` shows them.
fn decide(view: &World, index: usize) -> Vec<Action> {
    let (claims, volumes) = (claims(view), volumes(view));
    match (claims.len() + volumes.len()).checked_sub(1) {
        None => Vec::new(),
        Some(_) => match index % (claims.len() + volumes.len()) {
            index if index < claims.len() => look_at_claim(view, &claims[index]),
            index => look_at_volume(view, &volumes[index - claims.len()]),
        },
    }
}

fn act(world: &mut World, actions: &[Action]) -> bool {
    actions.iter().all(|action| world.act(action))
}

fn writes(actions: &[Action]) -> bool {
    actions.iter().any(|action| !matches!(action, Action::Event { .. } | Action::LookAgain { .. }))
}

/// Looks at everything until nobody wants to write.
fn settle(world: &mut World) {
    for _ in 0..200 {
        let count = claims(world).len() + volumes(world).len();
        let Some(actions) = (0..count).map(|index| decide(world, index)).find(|actions| writes(actions)) else {
            return;
        };
        assert!(act(world, &actions), "what was just seen is so: {actions:?}");
    }
    panic!("it does not come to rest: {:#?}", world.log);
}

fn phases(world: &World) -> (Vec<String>, Vec<String>) {
    let phase = |phase: Option<String>| phase.unwrap_or_default();
    let of_claims = claims(world).into_iter().map(|claim| phase(claim.status.and_then(|status| status.phase)));
    let of_volumes = volumes(world).into_iter().map(|volume| phase(volume.status.and_then(|status| status.phase)));
    (of_claims.collect(), of_volumes.collect())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn select(world: &mut World, claim: &str, node: &str) {
    world.change("PersistentVolumeClaim", claim, |claim| {
        claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = node.into();
    });
}

fn delete(world: &mut World, name: &str) {
    let claim = claims(world).into_iter().find(|claim| claim.metadata.name.as_deref() == Some(name)).expect("a claim");
    assert!(world.act(&Action::delete(&claim)));
}

#[test]
fn a_claim_takes_the_smallest_volume_that_is_large_enough() {
    let mut world = World::new();
    for (name, size) in [("small", 1), ("right", 3), ("large", 9)] {
        world.create(made_volume(name, "", size, "Retain"));
    }
    world.create(claim("data", "", 2));
    settle(&mut world);
    assert_eq!(claims(&world)[0].spec.as_ref().and_then(|spec| spec.volume_name.as_deref()), Some("right"));
    assert_eq!(phases(&world), (words(&["Bound"]), words(&["Available", "Bound", "Available"])));
    delete(&mut world, "data");
    settle(&mut world);
    assert_eq!(phases(&world), (Vec::new(), words(&["Available", "Released", "Available"])));
}

#[test]
fn a_directory_is_made_where_the_pod_goes_and_removed_when_nobody_uses_it() {
    let mut world = World::new();
    world.create(class("local", "shoal.dev/local-path", "WaitForFirstConsumer"));
    world.create(node("n1"));
    world.create(claim("data", "local", 1));
    settle(&mut world);
    assert_eq!(phases(&world), (words(&["Pending"]), Vec::new()));
    select(&mut world, "data", "n1");
    settle(&mut world);
    assert_eq!(phases(&world), (words(&["Bound"]), words(&["Bound"])));
    let made = volumes(&world).remove(0);
    let name = made.metadata.name.clone().expect("a name");
    let spec = made.spec.expect("a spec");
    assert_eq!(spec.local.expect("a directory").path, format!("/data/volumes/{name}"));
    world.change("PersistentVolume", &name, |volume| {
        volume["metadata"]["finalizers"] = json!(["kubernetes.io/pv-protection"]);
    });
    world.create(pod("web", "data", "n1"));
    delete(&mut world, "data");
    settle(&mut world);
    assert_eq!(phases(&world), (words(&["Bound"]), words(&["Bound"])));
    let using: Vec<Pod> = world.all("Pod");
    assert!(world.act(&Action::delete(&using[0])) && world.nodes_work());
    settle(&mut world);
    assert_eq!(phases(&world), (Vec::new(), Vec::new()));
    assert!(world.log.contains(&format!("remove the directory of {name}")), "{:#?}", world.log);
}

#[test]
fn a_claim_whose_node_is_gone_is_free_for_another() {
    let mut world = World::new();
    world.create(class("local", "shoal.dev/local-path", "WaitForFirstConsumer"));
    world.create(claim("data", "local", 1));
    select(&mut world, "data", "gone");
    settle(&mut world);
    let annotations = claims(&world).remove(0).metadata.annotations.unwrap_or_default();
    assert!(!annotations.contains_key("volume.kubernetes.io/selected-node"), "{annotations:?}");
}

#[test]
fn a_claim_that_has_lost_its_volume_says_so() {
    let mut world = World::new();
    world.create(made_volume("v", "", 1, "Retain"));
    world.create(claim("data", "", 1));
    settle(&mut world);
    let mut free = volumes(&world).remove(0);
    free.metadata.finalizers = None;
    assert!(act(&mut world, &[Action::replace(&free)]));
    assert!(act(&mut world, &[Action::delete(&free)]));
    settle(&mut world);
    assert_eq!(phases(&world), (words(&["Lost"]), Vec::new()));
}

#[test]
fn what_nobody_can_delete_is_said_to_have_failed() {
    let mut world = World::new();
    world.create(made_volume("v", "", 1, "Delete"));
    world.create(claim("data", "", 1));
    settle(&mut world);
    delete(&mut world, "data");
    settle(&mut world);
    assert_eq!(phases(&world), (Vec::new(), words(&["Failed"])));
}

#[test]
fn a_claim_says_why_it_waits() {
    let reason = |world: &World| {
        let actions = look_at_claim(world, &claims(world)[0]);
        actions.iter().find_map(|action| match action {
            Action::Event { reason, .. } => Some(*reason),
            _ => None,
        })
    };
    for (class_of_claim, expected) in [
        ("", "FailedBinding"),
        ("none", "ProvisioningFailed"),
        ("late", "WaitForFirstConsumer"),
        ("now", "ProvisioningFailed"),
        ("else", "ExternalProvisioning"),
    ] {
        let mut world = World::new();
        world.create(class("late", "shoal.dev/local-path", "WaitForFirstConsumer"));
        world.create(class("now", "shoal.dev/local-path", "Immediate"));
        world.create(class("else", "example.com/disk", "Immediate"));
        world.create(claim("data", class_of_claim, 1));
        assert_eq!(reason(&world), Some(expected), "{class_of_claim}");
    }
}

#[test]
fn a_pod_s_own_claims_are_made_once_and_not_taken_from_others() {
    let mut world = World::new();
    world.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "d"}, "spec": {
        "containers": [], "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}]}}));
    let look = |world: &World| {
        let pods: Vec<Pod> = world.all("Pod");
        ephemeral_volume::reconcile(&pods[0], &claims(world).iter().collect::<Vec<_>>())
    };
    let actions = look(&world);
    assert!(act(&mut world, &actions));
    assert_eq!(world.names("PersistentVolumeClaim"), ["web-v"]);
    let made = claims(&world).remove(0);
    assert_eq!(made.metadata.owner_references.map(|owners| owners[0].kind.clone()), Some("Pod".to_owned()));
    assert!(look(&world).is_empty());
    world.change("PersistentVolumeClaim", "web-v", |claim| claim["metadata"]["ownerReferences"] = json!([]));
    assert!(!writes(&look(&world)));
}

proptest! {
    /// Whatever is looked at in whatever order, by views of whatever age: no volume has two claims, no claim a volume of another
    /// class or too small a one; and once all is at rest, everything that could be bound is.
    #[test]
    fn no_volume_is_given_twice_nor_to_whom_it_does_not_fit(
        wished in prop::collection::vec((0_usize..3, 1_u32..4, any::<bool>()), 1..5),
        there in prop::collection::vec((0_usize..3, 1_u32..4), 0..5),
        order in prop::collection::vec((0_usize..20, 0_usize..4), 0..60),
    ) {
        let names = ["", "late", "local"];
        let mut world = World::new();
        world.create(class("late", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"));
        world.create(class("local", "shoal.dev/local-path", "WaitForFirstConsumer"));
        world.create(node("n1"));
        for (index, (class, size)) in there.iter().enumerate() {
            world.create(made_volume(&format!("v{index}"), names[*class], *size, "Retain"));
        }
        for (index, (class, size, is_selected)) in wished.iter().enumerate() {
            world.create(claim(&format!("c{index}"), names[*class], *size));
            if *is_selected {
                select(&mut world, &format!("c{index}"), "n1");
            }
        }
        let mut views = vec![world.clone()];
        for (index, age) in order {
            let view = &views[views.len().saturating_sub(1 + age)];
            let actions = decide(view, index);
            act(&mut world, &actions);
            check(&world)?;
            views.push(world.clone());
        }
        settle(&mut world);
        check(&world)?;
        for (claim, (class, _, is_selected)) in claims(&world).iter().zip(&wished) {
            let is_bound = claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"));
            prop_assert!(is_bound || *class != 2 || !is_selected, "what can be made is made: {claim:?}");
        }
    }
}

fn check(world: &World) -> Result<(), TestCaseError> {
    let (claims, volumes) = (claims(world), volumes(world));
    let mut taken = std::collections::BTreeSet::new();
    for claim in &claims {
        let spec = claim.spec.as_ref().expect("a spec");
        let Some(name) = spec.volume_name.as_deref() else { continue };
        prop_assert!(taken.insert(name.to_owned()), "{name} has two claims");
        let volume = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name)).expect("a volume");
        let offered = volume.spec.as_ref().expect("a spec");
        prop_assert_eq!(&offered.storage_class_name, &spec.storage_class_name);
        prop_assert_eq!(offered.claim_ref.as_ref().and_then(|claim| claim.uid.clone()), claim.metadata.uid.clone());
        let size = |quantity: &std::collections::BTreeMap<
            String,
            k8s_openapi::apimachinery::pkg::api::resource::Quantity,
        >| { quantity["storage"].0.trim_end_matches("Gi").parse::<u32>().expect("a size") };
        let wish = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()).expect("a wish");
        prop_assert!(size(offered.capacity.as_ref().expect("a capacity")) >= size(wish));
    }
    Ok(())
}
