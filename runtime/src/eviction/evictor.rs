//! Looking at the node again and again, and ending the pods that must go: one at a time, with a look between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::EVICTED;
use super::pressure::Pressure;
use super::rank::{self, Candidate};
use super::signals::Signals;
use super::storage;
use super::threshold::{Readings, Signal};
use super::watch::{Policy, Threshold, Watch};
use crate::context::Context;
use crate::disk_use::{self, Places, PodDisk};
use crate::image_gc::collector;
use crate::limits::{EVICTION_GRACE, EVICTION_LOOKS_AT_REST, EVICTION_PATIENCE, EVICTION_PERIOD};
use crate::pod::observed::{Doom, Refusal};
use crate::pod::spec;
use crate::pods::Pods;

/// One look at the node.
#[derive(Default)]
pub struct Look {
    /// What the node has left.
    pub readings: Readings,
    /// What each pod uses of the disk, by uid.
    pub disk: BTreeMap<String, PodDisk>,
    /// What each container uses of the memory, by the pod's uid and the container's name.
    pub memory: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A pod that must go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Its uid.
    pub uid: String,
    /// Why.
    pub message: String,
    /// The signal that the node is short of; none if the pod broke a limit of its own.
    pub signal: Option<Signal>,
    /// How long it may take to end at most; none is as long as it wants.
    pub grace: Option<Duration>,
}

/// Who must go after this look, with `driving` as the threshold for which a pod must. Pure.
///
/// Pods that break their own limits go at once, all of them. Only if there are none is room made for the node, and then by one
/// pod alone: what its end brings must be seen before another goes.
pub fn evictions(
    pods: &[Arc<Pod>],
    look: &Look,
    policy: &Policy,
    driving: Option<Threshold>,
    is_under_way: bool,
) -> Vec<Eviction> {
    let own = |pod: &Arc<Pod>| {
        let message = storage::excess(pod, look.disk.get(spec::uid(pod))?)?;
        Some(Eviction { uid: spec::uid(pod).to_owned(), message, signal: None, grace: Some(EVICTION_GRACE) })
    };
    let own: Vec<Eviction> = pods.iter().filter(|pod| !spec::is_critical(pod)).filter_map(own).collect();
    if !own.is_empty() || is_under_way {
        return own;
    }
    driving.and_then(|threshold| for_room(threshold, pods, look, policy)).into_iter().collect()
}

fn for_room(threshold: Threshold, pods: &[Arc<Pod>], look: &Look, policy: &Policy) -> Option<Eviction> {
    let signal = threshold.signal;
    let candidates: Vec<Candidate<'_>> =
        pods.iter().map(|pod| Candidate { pod, used: used(signal, pod, look) }).collect();
    let candidate = &candidates[rank::victim(signal, &candidates)?];
    let (level, reading) = (policy.level(threshold)?, *look.readings.get(&signal)?);
    let message = rank::message(signal, level, reading, candidate);
    let (uid, grace) = (spec::uid(candidate.pod).to_owned(), policy.pod_grace(threshold));
    Some(Eviction { uid, message, signal: Some(signal), grace })
}

fn used(signal: Signal, pod: &Pod, look: &Look) -> BTreeMap<String, u64> {
    let uid = spec::uid(pod);
    let disk = || look.disk.get(uid).cloned().unwrap_or_default();
    let with_volumes = |disk: &PodDisk, of: fn(disk_use::Used) -> u64| {
        let logs: BTreeMap<String, u64> = disk.logs.iter().map(|(name, used)| (name.clone(), of(*used))).collect();
        let volumes = of(disk.ephemeral(pod)).saturating_sub(logs.values().sum());
        logs.into_iter().chain([(String::new(), volumes)]).collect()
    };
    match signal.resource() {
        "memory" => {
            let mut used = look.memory.get(uid).cloned().unwrap_or_default();
            used.insert(String::new(), disk().memory(pod));
            used
        }
        "ephemeral-storage" => with_volumes(&disk(), |used| used.bytes),
        "inodes" => with_volumes(&disk(), |used| used.inodes),
        // Guests have no processes of their own.
        _ => BTreeMap::new(),
    }
}

/// Looks and evicts for ever.
pub async fn keep_watch(context: Arc<Context>, pods: Arc<Pods>, signals: Arc<dyn Signals>) {
    let mut ticks = tokio::time::interval(EVICTION_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let policy = context.config.eviction_policy();
    let mut watch = Watch::default();
    let mut under_way: Option<(String, Timestamp)> = None;
    let mut looks = 0u32;
    loop {
        ticks.tick().await;
        // What rests has no limit of its own; where room must be made it counts as all others.
        let mut active = pods.awake();
        let Some(mut look) = look_at(&context, &active, &signals).await else { continue };
        let now = Timestamp::now();
        watch.note(&policy, &look.readings, now);
        let is_short = watch.driving().next().is_some();
        if is_short {
            active = pods.active();
            let Some(whole) = look_at(&context, &active, &signals).await else { continue };
            look = whole;
        }
        let transition = SignedDuration::from_secs(context.config.eviction_transition_s.cast_signed());
        let pressures = watch.pressures(transition, now);
        let is_disk_short = watch.driving().any(|threshold| Pressure::of(threshold.signal) == Pressure::Disk);
        // Images can be had again: they go before any pod does, and what they leave may be enough.
        if is_disk_short && collector::remove_unused(&context, &pods).await > 0 {
            look = look_at(&context, &active, &signals).await.unwrap_or(look);
            watch.note(&policy, &look.readings, now);
        }
        context.node_state.send_if_modified(|state| {
            let is_new = state.pressures != pressures;
            state.pressures = pressures;
            is_new
        });
        let patience = SignedDuration::try_from(EVICTION_PATIENCE).unwrap_or(SignedDuration::MAX);
        under_way = under_way.filter(|(uid, since)| pods.is_busy(uid) && now.duration_since(*since) < patience);
        let chosen = evictions(&active, &look, &policy, watch.driving().next(), under_way.is_some());
        let is_turn_of_all = looks.is_multiple_of(EVICTION_LOOKS_AT_REST);
        looks = looks.wrapping_add(1);
        if is_turn_of_all && !is_short {
            look.disk = disk_of_all(&context, &pods).await;
        }
        context.usages.set_disk(look.disk, look.readings, is_short || is_turn_of_all);
        for eviction in chosen {
            tracing::warn!(uid = eviction.uid, message = eviction.message, "a pod is evicted");
            context.metrics.evicted(eviction.signal);
            under_way = Some((eviction.uid.clone(), now));
            pods.doom(&eviction.uid, doom(&eviction)).await;
        }
    }
}

fn doom(eviction: &Eviction) -> Doom {
    let refusal = Refusal { reason: EVICTED.to_owned(), message: eviction.message.clone() };
    Doom { refusal, grace: eviction.grace, is_disruption: eviction.signal.is_some() }
}

async fn look_at(context: &Arc<Context>, pods: &[Arc<Pod>], signals: &Arc<dyn Signals>) -> Option<Look> {
    let memory = pods.iter().map(|pod| (spec::uid(pod).to_owned(), context.usages.memory_of(spec::uid(pod)))).collect();
    let (context, pods, signals) = (Arc::clone(context), pods.to_vec(), Arc::clone(signals));
    let scan = tokio::task::spawn_blocking(move || {
        let disk = pods.iter().map(|pod| (spec::uid(pod).to_owned(), disk_use::of_pod(pod, &places(&context, pod))));
        Look { disk: disk.collect(), readings: signals.read(), memory }
    });
    // A panic of it is in the log already; the next look is another try.
    scan.await.ok()
}

/// What each pod uses of the disk, those at rest included.
async fn disk_of_all(context: &Arc<Context>, pods: &Arc<Pods>) -> BTreeMap<String, PodDisk> {
    let (context, pods) = (Arc::clone(context), Arc::clone(pods));
    let scan = tokio::task::spawn_blocking(move || {
        let of = |pod: Arc<Pod>| (spec::uid(&pod).to_owned(), disk_use::of_pod(&pod, &places(&context, &pod)));
        pods.active_one_by_one().map(of).collect()
    });
    // A panic of it is in the log already; the next look is another try.
    scan.await.unwrap_or_default()
}

fn places(context: &Context, pod: &Pod) -> Places {
    let uid = spec::uid(pod);
    let logs = spec::every_container(pod).map(|c| (c.name.clone(), context.log_root().join(uid).join(&c.name)));
    Places { volumes: context.volume_root(uid), logs: logs.collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::disk_use::Used;
    use crate::eviction::threshold::Reading;

    fn pod(uid: &str, size_limit: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": size_limit}}]}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn look(available: u64, volumes: &[(&str, u64)]) -> Look {
        let disk = volumes.iter().map(|(uid, bytes)| {
            let used = [("v".to_owned(), Used { bytes: *bytes, inodes: 1 })].into();
            ((*uid).to_owned(), PodDisk { volumes: used, ..PodDisk::default() })
        });
        let readings = [(Signal::NodefsAvailable, Reading { available, capacity: 100 })].into();
        Look { readings, disk: disk.collect(), ..Look::default() }
    }

    fn chosen(look: &Look, is_under_way: bool) -> Vec<(String, Option<Signal>)> {
        let pods = [pod("a", "10"), pod("b", "10"), pod("c", "10")];
        let policy = Policy { hard: "nodefs.available<10%".parse().expect("thresholds"), ..Policy::default() };
        let mut watch = Watch::default();
        watch.note(&policy, &look.readings, Timestamp::UNIX_EPOCH);
        let chosen = evictions(&pods, look, &policy, watch.driving().next(), is_under_way);
        chosen.into_iter().map(|e| (e.uid, e.signal)).collect()
    }

    #[test]
    fn those_that_break_a_limit_go_together_and_before_anybody_else() {
        let look = look(0, &[("a", 11), ("b", 10), ("c", 12)]);
        assert_eq!(chosen(&look, true), [("a".to_owned(), None), ("c".to_owned(), None)]);
    }

    #[test]
    fn room_is_made_by_one_pod_at_a_time() {
        let short = look(9, &[("a", 1), ("b", 10), ("c", 2)]);
        assert_eq!(chosen(&short, false), [("b".to_owned(), Some(Signal::NodefsAvailable))]);
        assert_eq!(chosen(&short, true), []);
        assert_eq!(chosen(&look(10, &[("a", 1)]), false), []);
    }
}
