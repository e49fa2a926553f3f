//! Which thresholds are met, since when, and which of them end pods. Pure.
//!
//! A soft threshold ends pods only once it has been met for its grace period without a break; the node says at once that it runs
//! short. One that ends pods goes on until there is more by the minimum to reclaim (Kubernetes, "Node-pressure Eviction").
//! By example, with `memory.available<1Gi`, a grace period of a minute and 500Mi to reclaim: with 900Mi left the condition is
//! true, after a minute the first pod goes, and none goes any more from 1524Mi on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::by_signal::BySignal;
use super::pressure::{Pressure, Seen};
use super::threshold::{Level, Readings, Signal, Thresholds};
use crate::limits::EVICTION_GRACE;

/// What the node defends itself by.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Below these pods go at once.
    pub hard: Thresholds,
    /// Below these pods go after a grace period.
    pub soft: Thresholds,
    /// Those grace periods; each soft threshold has one.
    pub soft_grace: BySignal<SignedDuration>,
    /// By how much more than its threshold there must be of something before no pod goes for it any more.
    pub minimum_reclaim: BySignal<Level>,
    /// How many seconds a pod that goes for a soft threshold may take to end at most; below zero as many as it wants.
    pub longest_pod_grace_s: i64,
}

/// A threshold, by what it is of and whether it waits. Those first that are the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    /// What runs out.
    pub signal: Signal,
    /// Whether it waits for its grace period.
    pub is_soft: bool,
}

impl Default for Policy {
    /// Kubernetes' own.
    fn default() -> Policy {
        Policy {
            hard: Thresholds::default(),
            soft: Thresholds::none(),
            soft_grace: BySignal::default(),
            minimum_reclaim: BySignal::default(),
            longest_pod_grace_s: 0,
        }
    }
}

impl Policy {
    fn thresholds(&self) -> impl Iterator<Item = Threshold> {
        let of = |thresholds: &Thresholds, is_soft| {
            thresholds.signals().map(|signal| Threshold { signal, is_soft }).collect::<Vec<_>>()
        };
        of(&self.hard, false).into_iter().chain(of(&self.soft, true))
    }

    /// The level of a threshold.
    pub fn level(&self, threshold: Threshold) -> Option<Level> {
        if threshold.is_soft { self.soft.level(threshold.signal) } else { self.hard.level(threshold.signal) }
    }

    /// How long a pod may take to end that goes for this threshold; none is as long as it wants.
    pub fn pod_grace(&self, threshold: Threshold) -> Option<Duration> {
        match u64::try_from(self.longest_pod_grace_s) {
            Ok(seconds) if threshold.is_soft => Some(Duration::from_secs(seconds).max(EVICTION_GRACE)),
            Err(_) if threshold.is_soft => None,
            _ => Some(EVICTION_GRACE),
        }
    }

    fn grace(&self, threshold: Threshold) -> SignedDuration {
        let soft = self.soft_grace.get(threshold.signal).filter(|_| threshold.is_soft);
        soft.unwrap_or(SignedDuration::ZERO)
    }

    /// Whether there is too little, or less than is to be reclaimed.
    fn is_met(&self, threshold: Threshold, readings: &Readings, reclaims: bool) -> bool {
        let (Some(level), Some(reading)) = (self.level(threshold), readings.get(&threshold.signal)) else {
            return false;
        };
        let more = self.minimum_reclaim.get(threshold.signal).filter(|_| reclaims);
        let more = more.map_or(0, |more| more.of(reading.capacity));
        reading.available < level.of(reading.capacity).saturating_add(more)
    }
}

/// What was seen of the thresholds up to now.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    met_since: BTreeMap<Threshold, Timestamp>,
    driving: BTreeSet<Threshold>,
    seen: Seen,
}

impl Watch {
    /// Takes note of a look at the node.
    pub fn note(&mut self, policy: &Policy, readings: &Readings, now: Timestamp) {
        let is_met = |threshold: &Threshold| policy.is_met(*threshold, readings, self.driving.contains(threshold));
        let met: BTreeSet<Threshold> = policy.thresholds().filter(is_met).collect();
        self.met_since.retain(|threshold, _| met.contains(threshold));
        for threshold in &met {
            self.met_since.entry(*threshold).or_insert(now);
        }
        self.seen.note(met.iter().map(|threshold| threshold.signal), now);
        let is_over_due = |(threshold, since): (&Threshold, &Timestamp)| {
            (now.duration_since(*since) >= policy.grace(*threshold)).then_some(*threshold)
        };
        self.driving = self.met_since.iter().filter_map(is_over_due).collect();
    }

    /// The thresholds for which pods must go, the most urgent first.
    pub fn driving(&self) -> impl Iterator<Item = Threshold> {
        self.driving.iter().copied()
    }

    /// What the node is under. A condition lasts for `transition` after its shortage, so that it does not flap.
    pub fn pressures(&self, transition: SignedDuration, now: Timestamp) -> Vec<Pressure> {
        self.seen.pressures(transition, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::eviction::threshold::Reading;

    const SOFT: Threshold = Threshold { signal: Signal::MemoryAvailable, is_soft: true };
    const HARD: Threshold = Threshold { signal: Signal::MemoryAvailable, is_soft: false };
    const GRACE_S: i64 = 60;

    fn policy() -> Policy {
        Policy {
            hard: "memory.available<10".parse().expect("thresholds"),
            soft: "memory.available<50".parse().expect("thresholds"),
            soft_grace: "memory.available=1m".parse().expect("periods"),
            minimum_reclaim: "memory.available=20%".parse().expect("levels"),
            longest_pod_grace_s: 0,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn memory(available: u64) -> Readings {
        [(Signal::MemoryAvailable, Reading { available, capacity: 100 })].into()
    }

    fn driving(watch: &mut Watch, available: u64, second: i64) -> Vec<Threshold> {
        watch.note(&policy(), &memory(available), at(second));
        watch.driving().collect()
    }

    #[test]
    fn a_soft_threshold_waits_for_its_grace_period_and_begins_anew_after_a_break() {
        let mut watch = Watch::default();
        assert_eq!(driving(&mut watch, 49, 0), []);
        assert_eq!(watch.pressures(SignedDuration::ZERO, at(0)), [Pressure::Memory]);
        assert_eq!(driving(&mut watch, 49, 59), []);
        assert_eq!(driving(&mut watch, 50, 60), []);
        assert_eq!(driving(&mut watch, 49, 61), []);
        assert_eq!(driving(&mut watch, 49, 121), [SOFT]);
    }

    #[test]
    fn a_hard_threshold_does_not_wait_and_goes_before_a_soft_one() {
        let mut watch = Watch::default();
        assert_eq!(driving(&mut watch, 9, 0), [HARD]);
        assert_eq!(driving(&mut watch, 9, 60), [HARD, SOFT]);
    }

    #[test]
    fn what_ends_pods_goes_on_until_enough_is_reclaimed() {
        let mut watch = Watch::default();
        assert_eq!(driving(&mut watch, 9, 0), [HARD]);
        assert_eq!(driving(&mut watch, 29, 10), [HARD]);
        assert_eq!(driving(&mut watch, 30, 20), []);
        assert_eq!(driving(&mut watch, 29, 30), [], "it is above its threshold");
        assert_eq!(driving(&mut watch, 29, 60), [SOFT]);
        assert_eq!(driving(&mut watch, 69, 70), [SOFT]);
        assert_eq!(watch.pressures(SignedDuration::ZERO, at(70)), [Pressure::Memory]);
        assert_eq!(driving(&mut watch, 70, 80), []);
        assert_eq!(watch.pressures(SignedDuration::from_secs(30), at(80)), [Pressure::Memory]);
        assert_eq!(watch.pressures(SignedDuration::from_secs(10), at(80)), []);
    }

    #[test]
    fn a_pod_may_take_as_long_to_end_as_the_policy_says() {
        let with = |longest_pod_grace_s| Policy { longest_pod_grace_s, ..policy() };
        assert_eq!(with(30).pod_grace(SOFT), Some(Duration::from_secs(30)));
        assert_eq!(with(0).pod_grace(SOFT), Some(EVICTION_GRACE));
        assert_eq!(with(-1).pod_grace(SOFT), None);
        assert_eq!(with(30).pod_grace(HARD), Some(EVICTION_GRACE));
        assert_eq!(with(-1).pod_grace(HARD), Some(EVICTION_GRACE));
    }

    #[test]
    fn what_cannot_be_read_ends_no_pod() {
        let mut watch = Watch::default();
        assert_eq!(driving(&mut watch, 9, 0), [HARD]);
        watch.note(&policy(), &Readings::new(), at(10));
        assert_eq!(watch.driving().count(), 0);
    }

    proptest! {
        #[test]
        fn pods_go_for_a_soft_threshold_only_after_it_was_met_all_its_grace_period(steps in prop::collection::vec((0u64..100, 1i64..40), 1..60)) {
            let mut watch = Watch::default();
            let (mut now, mut short_since, mut was_driving) = (0, None, false);
            for (available, pause) in steps {
                now += pause;
                let is_driving = driving(&mut watch, available, now).contains(&SOFT);
                // While pods go, what is to be reclaimed counts as missing.
                let is_short = available < if was_driving { 70 } else { 50 };
                short_since = if is_short { short_since.or(Some(now)) } else { None };
                prop_assert_eq!(is_driving, short_since.is_some_and(|since| now - since >= GRACE_S));
                let is_under_pressure = !watch.pressures(SignedDuration::ZERO, at(now)).is_empty();
                prop_assert!(is_under_pressure || !is_driving);
                was_driving = is_driving;
            }
        }
    }
}
