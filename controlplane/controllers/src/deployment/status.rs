//! What a deployment says about itself.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Limits, Sets, available, replicas};
use crate::action::Action;

/// Whether all pods are of the newest template, available, and as many as wanted.
pub(super) fn is_complete(sets: &Sets<'_>, limits: Limits) -> bool {
    let count = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let Some(new) = sets.new else { return false };
    let is_settled = replicas(new) == limits.wanted && count(new) == limits.wanted && available(new) >= limits.wanted;
    is_settled && sets.old.iter().all(|set| count(set) == 0 && replicas(set) == 0)
}

pub(super) fn sync(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    sets: &Sets<'_>,
    limits: Limits,
    collisions: Option<i32>,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let before = deployment.status.clone().unwrap_or_default();
    let sum = |part: fn(&ReplicaSet) -> i32| sets.all().map(part).sum::<i32>();
    let some = |number: i32| (number > 0).then_some(number);
    let count = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let all_available = sum(available);
    let terminating = sum(|set| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or_default());
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(count)),
        updated_replicas: some(sets.new.map_or(0, count)),
        ready_replicas: some(sum(|set| {
            set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
        })),
        available_replicas: some(all_available),
        unavailable_replicas: some(sum(replicas) - all_available),
        terminating_replicas: some(terminating),
        collision_count: collisions,
        conditions: before.conditions.clone(),
    };
    let has_enough = all_available >= limits.wanted - limits.unavailable;
    put(
        &mut status,
        now,
        "Available",
        if has_enough { "True" } else { "False" },
        if has_enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned())
        } else {
            ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.".to_owned())
        },
    );
    let deadline = progress(spec, sets, limits, &before, &mut status, now);
    if !is_same(&status, &before) {
        actions.push(Action::replace_status(&Deployment { status: Some(status), ..deployment.clone() }));
    }
    actions.extend(deadline.filter(|at| *at > now).map(|at| Action::LookAgain { at }));
}

/// Says whether the rollout gets on; answers when it is late.
fn progress(
    spec: &DeploymentSpec,
    sets: &Sets<'_>,
    limits: Limits,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Timestamp,
) -> Option<Timestamp> {
    let seconds = spec.progress_deadline_seconds.filter(|seconds| *seconds < i32::MAX)?;
    let last = find(before, "Progressing").cloned();
    let name = sets.new.and_then(|new| new.metadata.name.as_deref()).unwrap_or_default();
    if spec.paused == Some(true) {
        put(status, now, "Progressing", "Unknown", ("DeploymentPaused", "Deployment is paused".to_owned()));
        return None;
    }
    if is_complete(sets, limits) {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        put(status, now, "Progressing", "True", ("NewReplicaSetAvailable", message));
        return None;
    }
    let old =
        |status: &DeploymentStatus| status.replicas.unwrap_or_default() - status.updated_replicas.unwrap_or_default();
    let moved = status.updated_replicas > before.updated_replicas
        || old(status) < old(before)
        || status.ready_replicas > before.ready_replicas
        || status.available_replicas > before.available_replicas
        || before.observed_generation != status.observed_generation;
    let reason = last.as_ref().and_then(|last| last.reason.clone()).unwrap_or_default();
    if sets.new.is_none() {
        put(status, now, "Progressing", "True", ("ReplicaSetUpdated", "Deployment is progressing.".to_owned()));
    } else if moved
        || last.is_none()
        || reason == "DeploymentPaused"
        || (reason == "NewReplicaSetAvailable" && !has_fallen_back(sets))
    {
        let message = format!("ReplicaSet \"{name}\" is progressing.");
        put(status, now, "Progressing", "True", ("ReplicaSetUpdated", message));
        touch(status, now);
    } else if reason == "NewReplicaSetAvailable" || reason == "ProgressDeadlineExceeded" {
        // A rollout that was complete stays so when pods fail later; one that was late stays late until it moves.
        return None;
    }
    let since = find(status, "Progressing")
        .and_then(|condition| condition.last_update_time.as_ref())
        .map_or(now, |time| time.0);
    let late = since.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()?;
    if late <= now {
        let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
        put(status, now, "Progressing", "False", ("ProgressDeadlineExceeded", message));
    }
    Some(late)
}

/// Whether only the newest template is in use, so that what is missing failed and is not being rolled out.
fn has_fallen_back(sets: &Sets<'_>) -> bool {
    sets.old.iter().all(|set| replicas(set) == 0)
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn touch(status: &mut DeploymentStatus, now: Timestamp) {
    let conditions = status.conditions.iter_mut().flatten();
    for condition in conditions.filter(|condition| condition.type_ == "Progressing") {
        condition.last_update_time = Some(Time(now));
    }
}

fn put(status: &mut DeploymentStatus, now: Timestamp, kind: &str, word: &str, (reason, message): (&str, String)) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().position(|condition| condition.type_ == kind);
    let mut new = DeploymentCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let Some(index) = old else { return conditions.push(new) };
    let present = &conditions[index];
    if present.status == new.status && present.reason == new.reason && present.message == new.message {
        return;
    }
    if present.status == new.status {
        new.last_transition_time = present.last_transition_time.clone();
    }
    conditions[index] = new;
}

fn is_same(new: &DeploymentStatus, old: &DeploymentStatus) -> bool {
    let mut old = old.clone();
    let numbers = [
        &mut old.replicas,
        &mut old.updated_replicas,
        &mut old.ready_replicas,
        &mut old.available_replicas,
        &mut old.unavailable_replicas,
        &mut old.terminating_replicas,
    ];
    for number in numbers {
        *number = number.filter(|number| *number != 0);
    }
    *new == old
}
