//! How many pods each ReplicaSet of a deployment has next (Kubernetes: "Deployment", rolling update, proportional scaling).

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{DESIRED, Limits, MAX, Sets, annotation, available, replicas};
use crate::action::{Action, EventKind};

pub(super) fn annotations(limits: Limits) -> BTreeMap<String, String> {
    let most = limits.wanted + limits.surge;
    BTreeMap::from([(DESIRED.to_owned(), limits.wanted.to_string()), (MAX.to_owned(), most.to_string())])
}

fn total(sets: &Sets<'_>) -> i32 {
    sets.all().map(replicas).sum()
}

/// How many pods a ReplicaSet that is made now begins with.
pub(super) fn first_number(sets: &Sets<'_>, limits: Limits) -> i32 {
    if limits.is_recreate {
        return limits.wanted;
    }
    (limits.wanted + limits.surge - total(sets)).clamp(0, limits.wanted)
}

/// One step of a rolling update: up if there is room for more, else down as far as enough are available.
pub(super) fn step(deployment: &Deployment, sets: &Sets<'_>, limits: Limits) -> Vec<Action> {
    let Some(new) = sets.new else { return Vec::new() };
    if replicas(new) > limits.wanted {
        return set(Some(deployment), new, limits.wanted, limits);
    }
    let room = limits.wanted + limits.surge - total(sets);
    let missing = limits.wanted - replicas(new);
    if room > 0 && missing > 0 {
        return set(Some(deployment), new, replicas(new) + room.min(missing), limits);
    }
    down(deployment, new, sets, limits)
}

fn down(deployment: &Deployment, new: &ReplicaSet, sets: &Sets<'_>, limits: Limits) -> Vec<Action> {
    let least = limits.wanted - limits.unavailable;
    let mut room = total(sets) - least - (replicas(new) - available(new)).max(0);
    let mut next: Vec<i32> = sets.old.iter().map(|set| replicas(set)).collect();
    // What does not work is missed by nobody.
    for (number, set) in next.iter_mut().zip(&sets.old) {
        let broken = (*number - available(set)).max(0).min(room.max(0));
        *number -= broken;
        room -= broken;
    }
    // Every available pod above the least may go. A set's count may still hold pods that are going already, so that no more than
    // it will keep counts as available.
    let sure: i32 = sets.old.iter().zip(&next).map(|(set, number)| available(set).min(*number)).sum();
    let mut spare = (sure + available(new).min(replicas(new)) - least).max(0).min(room.max(0));
    for number in &mut next {
        let gone = spare.min(*number);
        *number -= gone;
        spare -= gone;
    }
    sets.old.iter().zip(next).flat_map(|(old, number)| set(Some(deployment), old, number, limits)).collect()
}

/// First nothing is left of the old, then the new comes.
pub(super) fn recreate(deployment: &Deployment, sets: &Sets<'_>, limits: Limits) -> Vec<Action> {
    if is_anything_left(&sets.old) {
        return down_to_nothing(deployment, &sets.old, limits);
    }
    sets.new.map(|new| set(Some(deployment), new, limits.wanted, limits)).unwrap_or_default()
}

pub(super) fn down_to_nothing(deployment: &Deployment, old: &[&ReplicaSet], limits: Limits) -> Vec<Action> {
    old.iter().flat_map(|old| set(Some(deployment), old, 0, limits)).collect()
}

/// Whether an old pod runs, or may.
pub(super) fn is_anything_left(old: &[&ReplicaSet]) -> bool {
    old.iter().any(|set| {
        let status = set.status.clone().unwrap_or_default();
        let is_seen = status.observed_generation >= set.metadata.generation;
        replicas(set) > 0 || status.replicas > 0 || status.terminating_replicas.unwrap_or_default() > 0 || !is_seen
    })
}

/// Whether the number of pods wanted has changed since the ReplicaSets were scaled last.
pub(super) fn is_wanted_number_new(sets: &Sets<'_>, limits: Limits) -> bool {
    let wanted = limits.wanted.to_string();
    sets.all().filter(|set| replicas(set) > 0).any(|set| {
        let desired = annotation(set.metadata.annotations.as_ref(), DESIRED);
        desired.is_some_and(|desired| desired != wanted)
    })
}

/// Shares a new number of pods among the ReplicaSets that have any, each by its size.
pub(super) fn proportionally(sets: &Sets<'_>, limits: Limits) -> Vec<Action> {
    let mut active: Vec<&ReplicaSet> = sets.all().filter(|set| replicas(set) > 0).collect();
    if active.is_empty() {
        return sets
            .new
            .or(sets.old.last().copied())
            .map(|only| set(None, only, limits.wanted, limits))
            .unwrap_or_default();
    }
    if active.len() == 1 {
        return set(None, active[0], limits.wanted, limits);
    }
    if !is_wanted_number_new(sets, limits) {
        return Vec::new();
    }
    let before = total(sets);
    let allowed = if limits.wanted > 0 { limits.wanted + limits.surge } else { 0 };
    // The largest first, and of equals the youngest when growing, so that the rest goes to it.
    active.reverse();
    active.sort_by_key(|set| std::cmp::Reverse(replicas(set)));
    let mut rest = allowed - before;
    let mut next = Vec::new();
    for set in &active {
        let share = i64::from(replicas(set)) * i64::from(allowed - before) / i64::from(before.max(1));
        let share = i32::try_from(share).unwrap_or_default();
        rest -= share;
        next.push(replicas(set) + share);
    }
    next[0] = (next[0] + rest).max(0);
    active.iter().zip(next).flat_map(|(active, number)| set(None, active, number, limits)).collect()
}

/// Sets the number of pods of one ReplicaSet, if it is another, and notes what the number was made for.
fn set(deployment: Option<&Deployment>, replica_set: &ReplicaSet, number: i32, limits: Limits) -> Vec<Action> {
    let before = replicas(replica_set);
    let mut next = replica_set.clone();
    next.metadata.annotations.get_or_insert_default().extend(annotations(limits));
    next.spec.get_or_insert_default().replicas = Some(number);
    if next == *replica_set || (before == number && before == 0) {
        return Vec::new();
    }
    let mut actions = vec![Action::replace(&next)];
    if let Some(deployment) = deployment.filter(|_| number != before) {
        let direction = if number > before { "up" } else { "down" };
        let name = replica_set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Scaled {direction} replica set {name} from {before} to {number}");
        actions.push(Action::event(deployment, EventKind::Normal, "ScalingReplicaSet", message));
    }
    actions
}
