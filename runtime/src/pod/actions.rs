//! What to do next for a pod: a snapshot in, a plan out.
//!
//! [`pod_actions`] takes no hint of what changed. After [`Observed::begin`] of its own actions it has nothing more to do
//! until something happens or [`next_wake`] comes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::back_off::{after, restart_delay, retry_delay};
use super::observed::{ContainerObserved, Image, Observed, Refusal, State, Volumes};
use super::status::has_ended;
use super::{ephemeral, spec};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodAction {
    /// Make the volumes' directories.
    Mount,
    /// Bring the volumes' contents up to date: something in them ends.
    Renew,
    /// Fetch and compile a container's module.
    Pull {
        /// Whose.
        container: String,
    },
    /// Start a container.
    Start {
        /// Which.
        container: String,
    },
    /// Ask a container to stop and let it drain.
    Stop {
        /// Which.
        container: String,
        /// How long it may take.
        grace: Duration,
        /// Why, for the event.
        because: String,
    },
    /// End a container now.
    Kill {
        /// Which.
        container: String,
    },
    /// The pod fails as a whole: stop every container for good.
    Doom(Refusal),
    /// Nothing runs any more and the pod is deleted: report, remove the object and everything kept of it.
    Finish,
}

/// What to do now.
pub fn pod_actions(pod: &Pod, observed: &Observed, now: Timestamp) -> Vec<PodAction> {
    if spec::is_deleted(pod) || observed.is_gone {
        return stop_all(pod, observed, now, true);
    }
    if observed.refusal.is_some() || observed.doom.is_some() {
        return stop_all(pod, observed, now, false);
    }
    // Sidecars go when the containers that they serve have ended for good.
    if has_ended(pod, observed) {
        return stop_all(pod, observed, now, false);
    }
    if deadline(pod, observed).is_some_and(|at| now >= at) {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        return vec![PodAction::Doom(Refusal { reason: "DeadlineExceeded".to_owned(), message })];
    }
    let mut actions = Vec::new();
    actions.extend(mount(observed, now));
    actions.extend(spec::every_container(pod).filter_map(|c| pull(pod, observed, &c, now)));
    actions.extend(spec::all_containers(pod).filter_map(|c| stop_unhealthy(pod, observed, c, now)));
    if matches!(observed.volumes, Volumes::Mounted) {
        actions.extend(observed.renew_at.filter(|at| now >= *at).map(|_| PodAction::Renew));
        actions.extend(starts(pod, observed, now));
        // Whatever the others do: what goes wrong with them may be what it is to find out.
        for container in ephemeral::definitions(pod) {
            let seen = observed.containers.get(&container.name);
            actions.extend(seen.and_then(|seen| start(pod, seen, &container, now)));
        }
    }
    actions
}

/// When, after `now`, [`pod_actions`] may have something to do though nothing happened. Times that are over are not told:
/// what was due then was decided, or waits for something else.
pub fn next_wake(pod: &Pod, observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let mut times = Vec::new();
    if let Volumes::Failed { failures, at, .. } = &observed.volumes {
        times.push(after(*at, retry_delay(*failures)));
    }
    times.extend(observed.renew_at);
    for container in spec::every_container(pod) {
        let Some(seen) = observed.containers.get(&container.name) else { continue };
        if let Image::Failed { failures, at, .. } = &seen.image {
            times.push(after(*at, retry_delay(*failures)));
        }
        match &seen.state {
            State::Running(running) if !running.is_killed => times.extend(running.kill_at),
            State::Misconfigured { at, .. } => times.push(Observed::config_retry_at(*at)),
            State::Ended(end) if spec::restarts_after(pod, &container, end.exit_code) => {
                times.push(after(end.finished_at, restart_delay(seen.crashes)));
            }
            _ => {}
        }
    }
    if observed.doom.is_none() {
        times.extend(deadline(pod, observed));
    }
    times.into_iter().filter(|at| *at > now).min()
}

/// When activeDeadlineSeconds is over.
fn deadline(pod: &Pod, observed: &Observed) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(after(observed.started_at?, SignedDuration::from_secs(seconds)))
}

fn stop_all(pod: &Pod, observed: &Observed, now: Timestamp, finish: bool) -> Vec<PodAction> {
    if observed.is_quiet() {
        return if finish { vec![PodAction::Finish] } else { Vec::new() };
    }
    let grace = grace(pod, observed);
    let plain_first = spec::containers(pod).iter().chain(spec::init_containers(pod).iter().rev());
    let mut actions = Vec::new();
    let mut someone_runs = false;
    for container in ephemeral::definitions(pod) {
        let Some(seen) = observed.containers.get(&container.name) else { continue };
        actions.extend(stop(&container.name, seen, grace, now, || format!("Stopping container {}", container.name)));
    }
    for container in plain_first {
        let is_init =
            spec::is_sidecar(container) && spec::init_containers(pod).iter().any(|c| c.name == container.name);
        // Sidecars stop after the containers that they serve, the last one first.
        if is_init && someone_runs {
            break;
        }
        let Some(seen) = observed.containers.get(&container.name) else { continue };
        someone_runs |= matches!(seen.state, State::Running(_) | State::Starting);
        actions.extend(stop(&container.name, seen, grace, now, || format!("Stopping container {}", container.name)));
    }
    actions
}

/// How long the pod's containers may take: its own word, cut short by the node's.
fn grace(pod: &Pod, observed: &Observed) -> Duration {
    let own = spec::grace(pod);
    observed.doom.as_ref().and_then(|doom| doom.grace).map_or(own, |longest| own.min(longest))
}

/// The next step of stopping a container that runs.
fn stop(
    name: &str,
    seen: &ContainerObserved,
    grace: Duration,
    now: Timestamp,
    because: impl Fn() -> String,
) -> Option<PodAction> {
    let State::Running(running) = &seen.state else { return None };
    if running.is_killed {
        return None;
    }
    let shorter = after(now, SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX));
    match running.kill_at {
        Some(at) if now >= at || (grace.is_zero() && at > now) => Some(PodAction::Kill { container: name.to_owned() }),
        Some(at) if at <= shorter => None,
        _ => Some(PodAction::Stop { container: name.to_owned(), grace, because: because() }),
    }
}

fn mount(observed: &Observed, now: Timestamp) -> Option<PodAction> {
    let is_due = match &observed.volumes {
        Volumes::Missing => true,
        Volumes::Failed { failures, at, .. } => now >= after(*at, retry_delay(*failures)),
        Volumes::Mounting { .. } | Volumes::Mounted => false,
    };
    is_due.then_some(PodAction::Mount)
}

fn pull(pod: &Pod, observed: &Observed, container: &Container, now: Timestamp) -> Option<PodAction> {
    let seen = observed.containers.get(&container.name)?;
    if let State::Ended(end) = &seen.state
        && !spec::restarts_after(pod, container, end.exit_code)
    {
        return None;
    }
    let is_due = match &seen.image {
        Image::Unknown => true,
        Image::Failed { failures, at, .. } => now >= after(*at, retry_delay(*failures)),
        Image::Pulling { .. } | Image::Present => false,
    };
    is_due.then(|| PodAction::Pull { container: container.name.clone() })
}

fn stop_unhealthy(pod: &Pod, observed: &Observed, container: &Container, now: Timestamp) -> Option<PodAction> {
    let seen = observed.containers.get(&container.name)?;
    let State::Running(running) = &seen.state else { return None };
    let message = running.unhealthy.as_ref()?;
    let probe = container.liveness_probe.as_ref().or(container.startup_probe.as_ref());
    let own = probe.and_then(|p| p.termination_grace_period_seconds).and_then(|s| u64::try_from(s).ok());
    let grace = own.map_or_else(|| spec::grace(pod), Duration::from_secs);
    stop(&container.name, seen, grace, now, || message.clone())
}

/// Init containers one after the other, sidecars once they are started, then all the others side by side.
fn starts(pod: &Pod, observed: &Observed, now: Timestamp) -> Vec<PodAction> {
    let mut actions = Vec::new();
    let regular_began = spec::containers(pod).iter().any(|c| began(observed, &c.name));
    for container in spec::init_containers(pod) {
        let Some(seen) = observed.containers.get(&container.name) else { continue };
        let is_passed = match &seen.state {
            State::Running(running) => spec::is_sidecar(container) && running.is_started,
            State::Ended(end) => !spec::is_sidecar(container) && (end.exit_code == 0 || regular_began),
            _ => false,
        };
        if is_passed {
            continue;
        }
        actions.extend(start(pod, seen, container, now));
        // A sidecar that restarts does not hold back what already runs beside it.
        if !(regular_began && spec::is_sidecar(container)) {
            return actions;
        }
    }
    for container in spec::containers(pod) {
        if let Some(seen) = observed.containers.get(&container.name) {
            actions.extend(start(pod, seen, container, now));
        }
    }
    actions
}

fn began(observed: &Observed, name: &str) -> bool {
    observed
        .containers
        .get(name)
        .is_some_and(|c| c.restarts > 0 || matches!(c.state, State::Starting | State::Running(_) | State::Ended(_)))
}

fn start(pod: &Pod, seen: &ContainerObserved, container: &Container, now: Timestamp) -> Option<PodAction> {
    if !matches!(seen.image, Image::Present) {
        return None;
    }
    let is_due = match &seen.state {
        State::Waiting => true,
        State::Misconfigured { at, .. } => now >= Observed::config_retry_at(*at),
        State::Ended(end) => {
            spec::restarts_after(pod, container, end.exit_code)
                && now >= after(end.finished_at, restart_delay(seen.crashes))
        }
        State::Starting | State::Running(_) => false,
    };
    is_due.then(|| PodAction::Start { container: container.name.clone() })
}
