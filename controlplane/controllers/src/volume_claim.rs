//! A claim gets its volume: one that is there, or one that is made for it on the node where its pod goes.
//!
//! A volume is given first, and then the claim says that it has it: whoever stops in between is continued, since the volume names
//! the claim. Both writes are conditional on what was seen, so that no volume is given twice. Kubernetes: "Persistent Volumes".

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use shoal_scheduler::storage::{
    BIND_COMPLETED, NO_PROVISIONER, SELECTED_NODE, claim_keys, class_name, find_volume, is_reserved_for, mismatch,
    volume_name, waits_for_consumer,
};

use crate::action::{Action, EventKind};
use crate::local_volume::{self, PROVISIONER};

/// Holds a claim while a pod uses it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";
/// The annotation of what was bound by us and not by its maker.
pub(crate) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The annotation that tells an outside provisioner which claims are its own.
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// What a claim can have, and who uses it.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// All volumes.
    pub volumes: &'a [&'a PersistentVolume],
    /// All classes.
    pub classes: &'a [&'a StorageClass],
    /// All nodes.
    pub nodes: &'a [&'a Node],
    /// The pods of the claim's namespace.
    pub pods: &'a [&'a Pod],
}

/// What `claim` needs now.
pub fn reconcile(claim: &PersistentVolumeClaim, around: Surroundings<'_>) -> Vec<Action> {
    let finalizers = claim.metadata.finalizers.clone().unwrap_or_default();
    let is_protected = finalizers.iter().any(|finalizer| finalizer == PROTECTION);
    if claim.metadata.deletion_timestamp.is_some() {
        if !is_protected || is_used(claim, around.pods) {
            return Vec::new();
        }
        let mut free = claim.clone();
        free.metadata.finalizers = Some(finalizers.into_iter().filter(|finalizer| finalizer != PROTECTION).collect());
        return vec![Action::replace(&free)];
    }
    if !is_protected {
        let mut held = claim.clone();
        held.metadata.finalizers.get_or_insert_default().push(PROTECTION.to_owned());
        return vec![Action::replace(&held)];
    }
    match volume_name(claim) {
        "" => unbound(claim, around),
        name => {
            named(claim, around.volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name)).copied())
        }
    }
}

/// Whether a pod that has a node names the claim; as long as its object is there, its node may be at work.
fn is_used(claim: &PersistentVolumeClaim, pods: &[&Pod]) -> bool {
    let name = claim.metadata.name.clone().unwrap_or_default();
    let placed = pods.iter().filter(|pod| !crate::pods::node(pod).is_empty());
    placed.flat_map(|pod| claim_keys(pod)).any(|(_, claimed)| claimed == name)
}

fn unbound(claim: &PersistentVolumeClaim, around: Surroundings<'_>) -> Vec<Action> {
    if let Some(class) = late_default(claim, around.classes) {
        let mut classed = claim.clone();
        classed.spec.get_or_insert_default().storage_class_name = class.metadata.name.clone();
        return vec![Action::replace(&classed)];
    }
    let selected = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
    let node = selected.and_then(|name| around.nodes.iter().find(|node| node.metadata.name.as_ref() == Some(name)));
    if selected.is_some() && node.is_none() {
        // The node is gone: the pod is to be placed anew.
        let mut free = claim.clone();
        free.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
        return vec![Action::replace(&free)];
    }
    let class = around.classes.iter().find(|class| class.metadata.name.as_deref() == Some(class_name(claim))).copied();
    let waits = node.is_none() && class.is_some_and(waits_for_consumer);
    let volumes = around.volumes.iter().copied().filter(|volume| !waits || is_reserved_for(volume, claim));
    match find_volume(claim, volumes, node.copied()) {
        Some(volume) => bind(claim, volume),
        None if waits => {
            let message = "waiting for first consumer to be created before binding".to_owned();
            vec![Action::event(claim, EventKind::Normal, "WaitForFirstConsumer", message)]
        }
        None => make(claim, class, node.copied()),
    }
}

/// The default class, for a claim that was made without one when there was none.
fn late_default<'a>(claim: &PersistentVolumeClaim, classes: &[&'a StorageClass]) -> Option<&'a StorageClass> {
    let says_class = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some());
    if says_class || !class_name(claim).is_empty() {
        return None;
    }
    let is_default = |class: &&&StorageClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get("storageclass.kubernetes.io/is-default-class"))
            .is_some_and(|is| is == "true")
    };
    let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    classes.iter().filter(is_default).max_by_key(|class| (created(class), class.metadata.name.clone())).copied()
}

/// Has a volume made, if its class has somebody who makes them.
fn make(claim: &PersistentVolumeClaim, class: Option<&StorageClass>, node: Option<&Node>) -> Vec<Action> {
    let name = class_name(claim);
    let fails = |message| vec![Action::event(claim, EventKind::Warning, "ProvisioningFailed", message)];
    let Some(class) = class.filter(|class| class.provisioner != NO_PROVISIONER) else {
        if class.is_none() && !name.is_empty() {
            return fails(format!("storageclass.storage.k8s.io {name:?} not found"));
        }
        let message = "no persistent volumes available for this claim and no storage class is set".to_owned();
        return vec![Action::event(claim, EventKind::Normal, "FailedBinding", message)];
    };
    if class.provisioner == PROVISIONER {
        return match local_volume::make(claim, class, node) {
            Ok(volume) => {
                let made = volume.metadata.name.clone().unwrap_or_default();
                let message = format!("Successfully provisioned volume {made}");
                let event = Action::event(claim, EventKind::Normal, "ProvisioningSucceeded", message);
                vec![Action::create(&volume), event]
            }
            Err(why) => fails(format!("failed to provision volume with StorageClass {name:?}: {why}")),
        };
    }
    let mut actions = Vec::new();
    let told = claim.metadata.annotations.as_ref().and_then(|all| all.get(STORAGE_PROVISIONER));
    if told != Some(&class.provisioner) {
        let mut waiting = claim.clone();
        let annotations = waiting.metadata.annotations.get_or_insert_default();
        annotations.insert(STORAGE_PROVISIONER.to_owned(), class.provisioner.clone());
        actions.push(Action::replace(&waiting));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. \
         If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
        class.provisioner
    );
    actions.push(Action::event(claim, EventKind::Normal, "ExternalProvisioning", message));
    actions
}

/// Gives the volume to the claim, and lets the claim say so.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Vec<Action> {
    let mut actions = Vec::new();
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.and_then(|reference| reference.uid.as_deref()).unwrap_or_default().is_empty() {
        let mut given = volume.clone();
        if reference.is_none() {
            mark(&mut given.metadata.annotations, BOUND_BY_CONTROLLER);
        }
        given.spec.get_or_insert_default().claim_ref = Some(reference_to(claim));
        actions.push(Action::replace(&given));
    }
    let mut bound = claim.clone();
    if volume_name(claim).is_empty() {
        mark(&mut bound.metadata.annotations, BOUND_BY_CONTROLLER);
    }
    bound.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
    mark(&mut bound.metadata.annotations, BIND_COMPLETED);
    if bound != *claim {
        actions.push(Action::replace(&bound));
    }
    actions
}

fn mark(annotations: &mut Option<std::collections::BTreeMap<String, String>>, key: &str) {
    annotations.get_or_insert_default().insert(key.to_owned(), "yes".to_owned());
}

/// The claim as its volume names it.
pub(crate) fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// A claim that names its volume, by itself or since they were bound.
fn named(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Vec<Action> {
    let was_bound = claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(BIND_COMPLETED));
    let Some(volume) = volume else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return if was_bound { lost(claim, "ClaimLost", message) } else { Vec::new() };
    };
    let name = volume_name(claim);
    let is_free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
    if !is_free && !is_reserved_for(volume, claim) {
        if was_bound {
            return lost(
                claim,
                "ClaimMisbound",
                "Two claims are bound to the same volume, this one is bound incorrectly",
            );
        }
        let message = format!("volume {name:?} already bound to a different claim.");
        return vec![Action::event(claim, EventKind::Warning, "FailedBinding", message)];
    }
    if !was_bound && let Some(why) = mismatch(volume, claim) {
        let message = format!("Cannot bind to requested volume {name:?}: {why}");
        return vec![Action::event(claim, EventKind::Warning, "VolumeMismatch", message)];
    }
    let binding = bind(claim, volume);
    if !binding.is_empty() {
        return binding;
    }
    let mut bound = claim.clone();
    let status = bound.status.get_or_insert_default();
    let spec = volume.spec.clone().unwrap_or_default();
    status.phase = Some("Bound".to_owned());
    status.access_modes = spec.access_modes;
    status.capacity = spec.capacity;
    if bound == *claim { Vec::new() } else { vec![Action::replace_status(&bound)] }
}

fn lost(claim: &PersistentVolumeClaim, reason: &'static str, message: &str) -> Vec<Action> {
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        return Vec::new();
    }
    let mut lost = claim.clone();
    let status = lost.status.get_or_insert_default();
    status.phase = Some("Lost".to_owned());
    (status.access_modes, status.capacity) = (None, None);
    vec![Action::replace_status(&lost), Action::event(claim, EventKind::Warning, reason, message.to_owned())]
}
