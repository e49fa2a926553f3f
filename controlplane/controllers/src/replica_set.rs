//! ReplicaSet: as many pods as it says, no more and no fewer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use sha2::{Digest, Sha256};
use shoal_scheduler::selects;

use crate::action::{Action, EventKind, Target, controller_reference, controller_uid};
use crate::pods::{available_from, is_active, is_over, is_ready, node, phase, restarts};

/// The most pods that one look creates or deletes; the next look goes on.
const BURST: usize = 500;

/// What `replica_set` needs, given all pods of its namespace.
pub fn reconcile(replica_set: &ReplicaSet, pods: &[&Pod], now: Timestamp) -> Vec<Action> {
    let Some(spec) = &replica_set.spec else { return Vec::new() };
    let uid = replica_set.metadata.uid.as_deref().unwrap_or_default();
    let is_deleting = replica_set.metadata.deletion_timestamp.is_some();
    let mut actions = Vec::new();
    let mut owned: Vec<&Pod> = Vec::new();
    for pod in pods {
        let matches = selects(&spec.selector, pod.metadata.labels.as_ref());
        match controller_uid(&pod.metadata) {
            Some(owner) if owner == uid && matches => owned.push(pod),
            Some(owner) if owner == uid && !is_deleting => actions.push(release(pod, uid)),
            None if matches && is_active(pod) && !is_deleting => {
                actions.push(adopt(pod, replica_set));
                owned.push(pod);
            }
            _ => {}
        }
    }
    owned.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut active: Vec<&Pod> = owned.iter().copied().filter(|pod| is_active(pod)).collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
    if !is_deleting && active.len() < wanted {
        let missing = (wanted - active.len()).min(BURST);
        actions.extend(names(replica_set, pods).take(missing).flat_map(|name| create(replica_set, &name)));
    } else if !is_deleting && active.len() > wanted {
        let excess = (active.len() - wanted).min(BURST);
        rank(&mut active);
        actions.extend(active[..excess].iter().flat_map(|pod| delete(replica_set, pod)));
    }
    status(replica_set, &owned, now, &mut actions);
    actions
}

fn adopt(pod: &Pod, replica_set: &ReplicaSet) -> Action {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.push(controller_reference(replica_set));
    patch_owners(pod, &json!(owners))
}

fn release(pod: &Pod, uid: &str) -> Action {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| owner.uid != uid);
    patch_owners(pod, &json!(owners))
}

fn patch_owners(pod: &Pod, owners: &serde_json::Value) -> Action {
    let metadata = &pod.metadata;
    let patch = json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version, "ownerReferences": owners}});
    Action::Patch { target: Target::of(pod), patch }
}

/// Names for new pods, which no pod here bears. The same view gives the same names, so that whoever creates from an old view
/// (a leader that was deposed, say) clashes with what is there and does nothing.
fn names<'a>(replica_set: &'a ReplicaSet, pods: &'a [&Pod]) -> impl Iterator<Item = String> + 'a {
    let metadata = &replica_set.metadata;
    let base = metadata.name.as_deref().unwrap_or_default();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let revision = metadata.resource_version.as_deref().unwrap_or_default();
    let taken: std::collections::BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    let candidates =
        (0u32..).map(move |index| format!("{:.57}-{}", base, letters(&format!("{uid}/{revision}/{index}"), 5)));
    candidates.filter(move |name| !taken.contains(name.as_str()))
}

/// `count` letters that stand for `seed`, of those that Kubernetes uses because they make no words.
pub(crate) fn letters(seed: &str, count: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = Sha256::digest(seed.as_bytes());
    hash.iter().take(count).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

fn create(replica_set: &ReplicaSet, name: &str) -> [Action; 2] {
    let template = replica_set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let given = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        generate_name: Some(format!("{}-", replica_set.metadata.name.as_deref().unwrap_or_default())),
        namespace: replica_set.metadata.namespace.clone(),
        labels: given.labels,
        annotations: given.annotations,
        finalizers: given.finalizers,
        owner_references: Some(vec![controller_reference(replica_set)]),
        ..ObjectMeta::default()
    };
    let pod = Pod { metadata, spec: template.spec, status: None };
    let event = Action::event(replica_set, EventKind::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
    [Action::create(&pod), event]
}

fn delete(replica_set: &ReplicaSet, pod: &Pod) -> [Action; 2] {
    let message = format!("Deleted pod: {}", pod.metadata.name.as_deref().unwrap_or_default());
    [Action::delete(pod), Action::event(replica_set, EventKind::Normal, "SuccessfulDelete", message)]
}

/// Orders pods so that those which are missed least come first (Kubernetes: "ReplicaSet", scaling down).
fn rank(pods: &mut [&Pod]) {
    let mut on_node: BTreeMap<&str, i64> = BTreeMap::new();
    for pod in pods.iter() {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let phase = match phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        let annotations = pod.metadata.annotations.as_ref();
        let cost =
            annotations.and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost")?.parse::<i64>().ok());
        let ready_since = crate::pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
        (
            (!node(pod).is_empty(), phase, is_ready(pod), cost.unwrap_or_default()),
            -on_node[node(pod)],
            std::cmp::Reverse(ready_since.map(|time| time.0)),
            -restarts(pod),
            std::cmp::Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
            pod.metadata.name.clone(),
        )
    });
}

fn status(replica_set: &ReplicaSet, owned: &[&Pod], now: Timestamp, actions: &mut Vec<Action>) {
    let Some(spec) = &replica_set.spec else { return };
    let mut status = ReplicaSetStatus {
        observed_generation: replica_set.metadata.generation,
        conditions: replica_set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..ReplicaSetStatus::default()
    };
    let (mut ready, mut available, mut labeled, mut terminating) = (0, 0, 0, 0);
    let template = spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let mut next: Option<Timestamp> = None;
    for pod in owned {
        if !is_active(pod) {
            terminating += i32::from(!is_over(pod));
            continue;
        }
        status.replicas += 1;
        let labels = pod.metadata.labels.as_ref();
        let has = |key: &String, value: &String| labels.is_some_and(|labels| labels.get(key) == Some(value));
        labeled += i32::from(template.is_none_or(|wanted| wanted.iter().all(|(key, value)| has(key, value))));
        ready += i32::from(is_ready(pod));
        match available_from(pod, spec.min_ready_seconds.unwrap_or_default()) {
            Some(from) if from <= now => available += 1,
            Some(from) => next = Some(next.map_or(from, |next| next.min(from))),
            None => {}
        }
    }
    // The API leaves zeros out, so that nothing and zero are the same here.
    let some = |count: i32| (count != 0).then_some(count);
    status.ready_replicas = some(ready);
    status.available_replicas = some(available);
    status.fully_labeled_replicas = some(labeled);
    status.terminating_replicas = some(terminating);
    if !is_same(&status, &replica_set.status.clone().unwrap_or_default()) {
        actions.push(Action::replace_status(&ReplicaSet { status: Some(status), ..replica_set.clone() }));
    }
    actions.extend(next.map(|at| Action::LookAgain { at }));
}

fn is_same(new: &ReplicaSetStatus, old: &ReplicaSetStatus) -> bool {
    let numbers = |status: &ReplicaSetStatus| {
        let zero = |count: Option<i32>| count.unwrap_or_default();
        let counts = [
            status.ready_replicas,
            status.available_replicas,
            status.fully_labeled_replicas,
            status.terminating_replicas,
        ];
        (status.replicas, counts.map(zero), status.observed_generation)
    };
    numbers(new) == numbers(old)
}
