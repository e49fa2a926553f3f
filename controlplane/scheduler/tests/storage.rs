//! What a pod's claims say about where it goes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use shoal_scheduler::{Snapshot, Storage, place};

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("it is of its kind")
}

fn node(name: &str) -> Arc<Node> {
    read(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "status": {
        "allocatable": {"cpu": "4", "memory": "1Gi", "pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]}}))
}

fn pod(name: &str, claims: &[&str]) -> Pod {
    let volumes: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
    read(
        json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"containers": [], "volumes": volumes}}),
    )
}

fn claim(name: &str, class: &str, volume: &str) -> Arc<PersistentVolumeClaim> {
    let annotations = if volume.is_empty() { json!({}) } else { json!({"pv.kubernetes.io/bind-completed": "yes"}) };
    read(json!({"metadata": {"name": name, "namespace": "d", "annotations": annotations}, "spec": {
        "storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}))
}

fn volume(name: &str, class: &str, size: &str, node: &str) -> Arc<PersistentVolume> {
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
    read(json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"], "local": {"path": "/x"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}))
}

fn class(name: &str, provisioner: &str, mode: &str) -> Arc<StorageClass> {
    read(json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode}))
}

fn cluster(claims: Vec<Arc<PersistentVolumeClaim>>, volumes: Vec<Arc<PersistentVolume>>) -> Snapshot {
    let classes = vec![
        class("late", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        class("made", "example.com/disk", "WaitForFirstConsumer"),
        class("now", "example.com/disk", "Immediate"),
    ];
    Snapshot::new([node("a"), node("b")], []).with_storage(Storage::new(claims, volumes, classes))
}

fn placed(pod: &Pod, cluster: &Snapshot) -> String {
    place(pod, cluster).map_or_else(|refusal| refusal.to_string(), |name| name.0)
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let cluster = cluster(vec![claim("data", "late", "v")], vec![volume("v", "late", "1Gi", "b")]);
    assert_eq!(placed(&pod("p", &["data"]), &cluster), "b");
    let two = vec![claim("data", "late", "v"), claim("more", "late", "w")];
    let cluster = self::cluster(two, vec![volume("v", "late", "1Gi", "a"), volume("w", "late", "1Gi", "b")]);
    let expected = "0/2 nodes are available: 2 node(s) had volume node affinity conflict.";
    assert_eq!(placed(&pod("p", &["data", "more"]), &cluster), expected);
}

#[test]
fn what_is_not_bound_yet_is_said_as_kubernetes_says_it() {
    let cluster = cluster(vec![claim("now", "now", ""), claim("lost", "now", "gone")], Vec::new());
    for (name, reason) in [
        ("now", "pod has unbound immediate PersistentVolumeClaims"),
        ("none", "persistentvolumeclaim \"none\" not found"),
        ("lost", "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"gone\""),
    ] {
        assert_eq!(placed(&pod("p", &[name]), &cluster), format!("0/2 nodes are available: {reason}."));
    }
}

#[test]
fn a_claim_that_waits_leads_to_a_node_that_has_what_it_wants() {
    let volumes = || vec![volume("small", "late", "1Mi", "a"), volume("v", "late", "2Gi", "b")];
    let one = cluster(vec![claim("data", "late", "")], volumes());
    assert_eq!(placed(&pod("p", &["data"]), &one), "b");
    let names: Vec<_> =
        one.storage().open_claims(&pod("p", &["data"])).iter().map(|c| c.metadata.name.clone()).collect();
    assert_eq!(names, [Some("data".to_owned())]);
    // Both want the one volume that is large enough.
    let two = cluster(vec![claim("data", "late", ""), claim("more", "late", "")], volumes());
    let expected = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(placed(&pod("p", &["data", "more"]), &two), expected);
    let made = cluster(vec![claim("data", "made", "")], Vec::new());
    assert_eq!(placed(&pod("p", &["data"]), &made), "a");
}

#[test]
fn a_node_that_was_chosen_for_a_claim_stays_chosen() {
    let mut chosen = PersistentVolumeClaim::clone(&claim("data", "made", ""));
    chosen.metadata.annotations = Some([("volume.kubernetes.io/selected-node".to_owned(), "b".to_owned())].into());
    assert_eq!(placed(&pod("p", &["data"]), &cluster(vec![Arc::new(chosen)], Vec::new())), "b");
}

#[test]
fn a_claim_for_one_pod_is_given_to_one_pod() {
    let mut single = PersistentVolumeClaim::clone(&claim("data", "late", "v"));
    single.spec.as_mut().expect("it has one").access_modes = Some(vec!["ReadWriteOncePod".to_owned()]);
    let mut cluster = cluster(vec![Arc::new(single)], vec![volume("v", "late", "1Gi", "a")]);
    assert_eq!(placed(&pod("p", &["data"]), &cluster), "a");
    cluster.add(&Arc::new(pod("p", &["data"])), "a");
    let expected = "0/2 nodes are available: node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
    assert_eq!(placed(&pod("q", &["data"]), &cluster), expected);
}
