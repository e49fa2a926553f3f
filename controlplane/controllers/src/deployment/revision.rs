//! The numbers of a deployment's templates, and how many old ones are kept to go back to.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use serde_json::json;

use super::{REVISION, Sets, annotation, replicas};
use crate::action::{Action, Target};

fn number(set: &ReplicaSet) -> i64 {
    annotation(set.metadata.annotations.as_ref(), REVISION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The number after all of these.
pub(super) fn next(old: &[&ReplicaSet]) -> i64 {
    old.iter().map(|set| number(set)).max().unwrap_or_default() + 1
}

/// The annotations that a deployment hands on to its ReplicaSets.
pub(super) fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| {
        name != "kubectl.kubernetes.io/last-applied-configuration" && !name.starts_with("deployment.kubernetes.io/")
    });
    annotations
}

/// Gives the newest template the highest number, also when it is an old one that came back, and the deployment the same number.
pub(super) fn sync(deployment: &Deployment, new: &ReplicaSet, sets: &Sets<'_>) -> Vec<Action> {
    let wanted = number(new).max(next(&sets.old)).to_string();
    let mut actions = Vec::new();
    let mut changed = new.clone();
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.extend(inherited(deployment));
    annotations.insert(REVISION.to_owned(), wanted.clone());
    let spec = changed.spec.get_or_insert_default();
    spec.min_ready_seconds = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
    if changed != *new {
        actions.push(Action::replace(&changed));
    }
    if annotation(deployment.metadata.annotations.as_ref(), REVISION) != Some(&wanted) {
        let metadata = &deployment.metadata;
        let patch = json!({"metadata": {
            "uid": metadata.uid, "resourceVersion": metadata.resource_version, "annotations": {REVISION: wanted},
        }});
        actions.push(Action::Patch { target: Target::of(deployment), patch });
    }
    actions
}

/// Deletes the oldest of the ReplicaSets that have nothing left, beyond those to be kept.
pub(super) fn cleanup(spec: &DeploymentSpec, old: &[&ReplicaSet]) -> Vec<Action> {
    let kept = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
    let is_empty = |set: &&&ReplicaSet| {
        let status = set.status.clone().unwrap_or_default();
        replicas(set) == 0 && status.replicas == 0 && status.observed_generation >= set.metadata.generation
    };
    let mut empty: Vec<&ReplicaSet> = old.iter().filter(is_empty).copied().collect();
    empty.sort_by_key(|set| number(set));
    let excess = empty.len().saturating_sub(kept);
    empty[..excess].iter().map(|set| Action::delete(*set)).collect()
}
