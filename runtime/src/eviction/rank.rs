//! Who goes when the node runs out of something. Pure.
//!
//! Kubernetes' order: those first that use more than they were promised, then those of the lowest priority, then those that
//! exceed their request by most. Critical and static pods never go.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use shoal_api::quantity::Quantity;

use super::threshold::{Level, Reading, Signal};
use crate::pod::resources::{Bound, of_container, request};
use crate::pod::spec;

/// A pod that could go, and what it uses of what runs out.
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// By container; what belongs to no container is under the empty name.
    pub used: BTreeMap<String, u64>,
}

impl Candidate<'_> {
    fn total(&self) -> u64 {
        self.used.values().fold(0, |sum, used| sum.saturating_add(*used))
    }
}

/// Which of the candidates goes; none if all are critical.
pub fn victim(signal: Signal, candidates: &[Candidate<'_>]) -> Option<usize> {
    let evictable = candidates.iter().enumerate().filter(|(_, candidate)| !spec::is_critical(candidate.pod));
    evictable.min_by_key(|(_, candidate)| order(signal, candidate)).map(|(index, _)| index)
}

/// Smaller goes first; the uid makes it the same choice again.
fn order<'a>(signal: Signal, candidate: &'a Candidate<'_>) -> (bool, i32, Reverse<i128>, &'a str) {
    let pod = candidate.pod;
    // Files and processes are promised to nobody.
    let requested = match signal.resource() {
        resource @ ("memory" | "ephemeral-storage") => u64::try_from(request(pod, resource).bytes()).unwrap_or(0),
        _ => 0,
    };
    let over = i128::from(candidate.total()) - i128::from(requested);
    let is_within = signal != Signal::PidAvailable && over <= 0;
    (is_within, spec::priority(pod), Reverse(over), spec::uid(pod))
}

/// What the pod is told, in the kubelet's words.
pub fn message(signal: Signal, level: Level, reading: Reading, candidate: &Candidate<'_>) -> String {
    let resource = signal.resource();
    let quantity = |bytes: u64| Quantity::from_bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
    let (threshold, available) = (quantity(level.of(reading.capacity)), quantity(reading.available));
    let mut message =
        format!("The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}. ");
    for container in spec::all_containers(candidate.pod) {
        let requested = of_container(container, Bound::Requests, resource).unwrap_or(Quantity::ZERO);
        let used = quantity(candidate.used.get(&container.name).copied().unwrap_or(0));
        if used > requested {
            message.push_str(&format!(
                "Container {} was using {used}, request is {requested}, has larger consumption of {resource}. ",
                container.name
            ));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, priority: i32, requested: u64) -> Pod {
        let requests = json!({"memory": requested.to_string()});
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": requests}}]}}))
            .expect("a pod")
    }

    fn candidate(pod: &Pod, used: u64) -> Candidate<'_> {
        Candidate { pod, used: [("c".to_owned(), used)].into() }
    }

    #[test]
    fn the_message_names_the_threshold_and_the_containers_above_their_request() {
        let pod = pod("a", 0, 0);
        let reading = Reading { available: 50 << 10, capacity: 1 << 30 };
        let level = Level::Quantity(Quantity::from_bytes(100 << 20));
        assert_eq!(
            message(Signal::MemoryAvailable, level, reading, &candidate(&pod, 5 << 20)),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Ki. Container c was using 5Mi, \
             request is 0, has larger consumption of memory. "
        );
    }

    proptest! {
        #[test]
        fn the_order_is_kubernetes(rows in prop::collection::vec((-2_i32..3, 0_u64..6, 0_u64..10, prop::bool::weighted(0.1)), 0..8)) {
            let priority = |priority: i32, is_critical: bool| if is_critical { 2_000_000_000 } else { priority };
            let pods: Vec<Pod> = rows.iter().enumerate().map(|(index, (p, requested, _, critical))| pod(&index.to_string(), priority(*p, *critical), *requested)).collect();
            let candidates: Vec<Candidate<'_>> = pods.iter().zip(&rows).map(|(pod, (_, _, used, _))| candidate(pod, *used)).collect();
            let exceeds = |index: usize| rows[index].2 > rows[index].1;
            let over = |index: usize| i128::from(rows[index].2) - i128::from(rows[index].1);
            let Some(chosen) = victim(Signal::MemoryAvailable, &candidates) else {
                prop_assert!(rows.iter().all(|row| row.3));
                return Ok(());
            };
            prop_assert!(!rows[chosen].3, "a critical pod never goes");
            for other in (0..rows.len()).filter(|other| !rows[*other].3) {
                prop_assert!(exceeds(chosen) || !exceeds(other), "who exceeds its request goes before who does not");
                if exceeds(other) == exceeds(chosen) {
                    prop_assert!(rows[chosen].0 <= rows[other].0, "the lower priority goes first");
                    if rows[chosen].0 == rows[other].0 {
                        prop_assert!(over(chosen) >= over(other), "who exceeds it by more goes first");
                    }
                }
            }
        }
    }
}
