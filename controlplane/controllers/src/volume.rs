//! A volume says whether it is free, and when its claim is gone it is kept, or its directory is removed and then it itself.
//!
//! That a claim is gone is asked of the API before anything is removed: what a cache does not show may still be there.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shoal_scheduler::storage::{is_bound, volume_name};

use crate::action::{Action, EventKind, Target};
use crate::local_volume;
use crate::volume_claim::BOUND_BY_CONTROLLER;

/// Holds a volume while a claim has it.
const PROTECTION: &str = "kubernetes.io/pv-protection";

/// What `volume` needs now; `claim` is the one of the name that the volume names, if there is one.
pub fn reconcile(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>, now: Timestamp) -> Vec<Action> {
    let standing = standing(volume, claim);
    let is_deleting = volume.metadata.deletion_timestamp.is_some();
    let actions = match standing {
        Standing::Free => status(volume, "Available", None, now),
        Standing::Claimed => status(volume, "Bound", None, now),
        // The claim is about to say that it has it.
        Standing::Given => Vec::new(),
        Standing::Misbound if is_deleting => Vec::new(),
        Standing::Misbound => vec![give_back(volume)],
        Standing::Left => left(volume, now),
    };
    if actions.is_empty() { let_go(volume, standing) } else { actions }
}

/// How a volume and its claim stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nobody has it, though it may be reserved.
    Free,
    /// It names a claim that does not say yet that it has it.
    Given,
    /// Its claim has it.
    Claimed,
    /// Its claim has another.
    Misbound,
    /// Its claim is gone.
    Left,
}

fn standing(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Standing {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(uid) = reference.and_then(|reference| reference.uid.as_deref()).filter(|uid| !uid.is_empty()) else {
        return Standing::Free;
    };
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) else { return Standing::Left };
    if volume_name(claim).is_empty() {
        return Standing::Given;
    }
    match Some(volume_name(claim)) == volume.metadata.name.as_deref() {
        true => Standing::Claimed,
        false if is_bound(claim) => Standing::Misbound,
        false => Standing::Given,
    }
}

/// Frees what its claim does not want; what was made for that claim is of no use to others and goes.
fn give_back(volume: &PersistentVolume) -> Action {
    if local_volume::node(volume).is_some() && policy(volume) == "Delete" {
        return Action::delete(volume);
    }
    let mut free = volume.clone();
    let was_ours = free.metadata.annotations.as_mut().and_then(|all| all.remove(BOUND_BY_CONTROLLER)).is_some();
    if let Some(spec) = &mut free.spec {
        match &mut spec.claim_ref {
            // Its maker reserved it: it stays reserved.
            Some(reference) if !was_ours => reference.uid = None,
            reference => *reference = None,
        }
    }
    Action::replace(&free)
}

fn policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or_default()
}

/// What becomes of a volume whose claim is gone.
fn left(volume: &PersistentVolume, now: Timestamp) -> Vec<Action> {
    let is_deleting = volume.metadata.deletion_timestamp.is_some();
    let fails = |reason, message: String| {
        let failed = status(volume, "Failed", Some((reason, &message)), now);
        let is_news = !failed.is_empty();
        failed.into_iter().chain(is_news.then(|| Action::event(volume, EventKind::Warning, reason, message))).collect()
    };
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    match policy(volume) {
        _ if is_deleting => status(volume, "Released", None, now),
        "Delete" if local_volume::node(volume).is_some() => {
            let mut actions = status(volume, "Released", None, now);
            actions.push(Action::DeleteOrphan {
                target: Target::of(volume),
                uid: volume.metadata.uid.clone().unwrap_or_default(),
                owners: owners(volume),
                grace_seconds: None,
            });
            actions
        }
        "Delete" if is_made_elsewhere(volume) => status(volume, "Released", None, now),
        "Delete" => fails(
            "VolumeFailedDelete",
            format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"),
        ),
        "Recycle" => fails("VolumeRecycleFailed", "No recycler plugin found for the volume!".to_owned()),
        _ => status(volume, "Released", None, now),
    }
}

/// Whether somebody outside made the volume, who also removes it.
fn is_made_elsewhere(volume: &PersistentVolume) -> bool {
    volume.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("pv.kubernetes.io/provisioned-by"))
}

/// The claim that the volume names, to be asked for.
fn owners(volume: &PersistentVolume) -> Vec<(Target, String)> {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()).unwrap_or_default();
    let (namespace, name) = (reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
    vec![(Target::named::<PersistentVolumeClaim>(&namespace, &name), reference.uid.unwrap_or_default())]
}

/// A volume that is being deleted goes once nobody has it, and its directory before it.
fn let_go(volume: &PersistentVolume, standing: Standing) -> Vec<Action> {
    let finalizers = volume.metadata.finalizers.clone().unwrap_or_default();
    let is_protected = finalizers.iter().any(|finalizer| finalizer == PROTECTION);
    if volume.metadata.deletion_timestamp.is_none()
        || !is_protected
        || matches!(standing, Standing::Given | Standing::Claimed)
    {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if let Some(node) = local_volume::node(volume).filter(|_| policy(volume) == "Delete") {
        actions.push(Action::RemoveDirectory {
            node: Target::named::<Node>("", node),
            volume: volume.metadata.name.clone().unwrap_or_default(),
            claims: if standing == Standing::Left { owners(volume) } else { Vec::new() },
        });
    }
    let left: Vec<String> = finalizers.into_iter().filter(|finalizer| finalizer != PROTECTION).collect();
    let mut free = volume.clone();
    free.metadata.finalizers = Some(left);
    actions.push(Action::replace(&free));
    actions
}

fn status(volume: &PersistentVolume, phase: &str, why: Option<(&str, &str)>, now: Timestamp) -> Vec<Action> {
    let before = volume.status.clone().unwrap_or_default();
    let wanted = PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        reason: why.map(|(reason, _)| reason.to_owned()),
        message: why.map(|(_, message)| message.to_owned()),
        last_phase_transition_time: before.last_phase_transition_time.clone(),
    };
    if wanted == before {
        return Vec::new();
    }
    let changed = before.phase != wanted.phase;
    let time = if changed { Some(Time(now)) } else { before.last_phase_transition_time };
    let status = Some(PersistentVolumeStatus { last_phase_transition_time: time, ..wanted });
    vec![Action::replace_status(&PersistentVolume { status, ..volume.clone() })]
}
