//! The controllers of storage: when which claim, volume and pod is looked at.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use shoal_client::{ObjectKey, key_of};
use shoal_controllers::volume_claim::Surroundings;
use shoal_controllers::{ephemeral_volume, volume, volume_claim};
use shoal_link::tasks::Tasks;
use shoal_scheduler::storage::{SELECTED_NODE, claim_keys, class_name, is_bound, volume_name};

use super::controllers::{Queues, Starter, follow, references};
use super::observed::{Observed, within};

/// Starts the lookers.
pub(super) fn start(starter: &Starter<'_>, queues: &Queues) {
    starter.look("volume claim", &queues.claims, |observed, key, _| {
        let Some(found) = observed.claims.get(&key.namespace, &key.name) else { return Vec::new() };
        let volumes = within(&observed.volumes.snapshot(), "");
        let classes = within(&observed.storage_classes.snapshot(), "");
        let nodes = within(&observed.nodes.snapshot(), "");
        let pods = within(&observed.pods.snapshot(), &key.namespace);
        let around = Surroundings {
            volumes: &references(&volumes),
            classes: &references(&classes),
            nodes: &references(&nodes),
            pods: &references(&pods),
        };
        volume_claim::reconcile(&found, around)
    });
    starter.look("volume", &queues.volumes, |observed, key, now| {
        let Some(found) = observed.volumes.get("", &key.name) else { return Vec::new() };
        let claim = claim_of(&found).and_then(|claim| observed.claims.get(&claim.namespace, &claim.name));
        volume::reconcile(&found, claim.as_deref(), now)
    });
    starter.look("ephemeral volume", &queues.pods, |observed, key, _| {
        let Some(found) = observed.pods.get(&key.namespace, &key.name) else { return Vec::new() };
        let claims = within(&observed.claims.snapshot(), &key.namespace);
        ephemeral_volume::reconcile(&found, &references(&claims))
    });
}

/// Turns every change into keys to look at.
pub(super) fn feed(tasks: &Tasks, observed: &Observed, queues: &Arc<Queues>) {
    follow(tasks, queues, observed, &observed.claims, |queues, claim| {
        queues.claims.add(key_of(claim));
        if !volume_name(claim).is_empty() {
            queues.volumes.add(ObjectKey::new("", volume_name(claim)));
        }
        let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
        for pod in owners.iter().filter(|owner| owner.kind == "Pod") {
            queues.pods.add(ObjectKey::new(claim.metadata.namespace.as_deref().unwrap_or_default(), &pod.name));
        }
    });
    let seen = observed.clone();
    follow(tasks, queues, observed, &observed.volumes, move |queues, volume| {
        queues.volumes.add(key_of(volume));
        match claim_of(volume) {
            Some(claim) => queues.claims.add(claim),
            None => look_at_waiting(&seen, queues, |_| true),
        }
        // Those that have it, or wish for it by name.
        let name = volume.metadata.name.as_deref();
        let named = within(&seen.claims.snapshot(), "").into_iter().filter(|claim| Some(volume_name(claim)) == name);
        named.for_each(|claim| queues.claims.add(key_of(&*claim)));
    });
    let seen = observed.clone();
    follow(tasks, queues, observed, &observed.storage_classes, move |queues, class| {
        let name = class.metadata.name.as_deref();
        look_at_waiting(&seen, queues, |claim| class_name(claim).is_empty() || Some(class_name(claim)) == name);
    });
    let seen = observed.clone();
    follow(tasks, queues, observed, &observed.nodes, move |queues, node| {
        let selected = |claim: &PersistentVolumeClaim| {
            claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE)) == node.metadata.name.as_ref()
        };
        look_at_waiting(&seen, queues, selected);
    });
    let seen = observed.clone();
    follow(tasks, queues, observed, &observed.pods, move |queues, pod| {
        for (namespace, name) in claim_keys(pod) {
            // A claim that is being deleted waits for its pods, and no other does.
            let is_going = |claim: Arc<PersistentVolumeClaim>| claim.metadata.deletion_timestamp.is_some();
            if seen.claims.get(&namespace, &name).is_some_and(is_going) {
                queues.claims.add(ObjectKey::new(namespace, name));
            }
        }
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        if volumes.into_iter().any(|volume| volume.ephemeral.is_some()) {
            queues.pods.add(key_of(pod));
        }
    });
}

/// Has the claims looked at that have no volume yet and are of this sort.
fn look_at_waiting(observed: &Observed, queues: &Queues, is_meant: impl Fn(&PersistentVolumeClaim) -> bool) {
    let claims = within(&observed.claims.snapshot(), "");
    let waiting = claims.iter().filter(|claim| !is_bound(claim) && is_meant(claim));
    waiting.for_each(|claim| queues.claims.add(key_of(&**claim)));
}

/// The claim that a volume names.
fn claim_of(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey::new(reference.namespace.as_deref()?, reference.name.as_deref()?))
}
