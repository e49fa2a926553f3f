//! A pod with whose worker there is nothing to do: what the worker knew, small, until something happens.
//!
//! Thousands of functions may wait on a node for somebody to ask them. Requests do not need their workers, and a worker, its
//! queues and the decoded object are ten times what is kept here.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::container::Run;
use crate::disk_use;
use crate::packed::Packed;
use crate::pod::{Observed, spec};
use crate::pod_record::PodRecord;
use crate::pod_view::PodView;

/// One pod at rest.
pub struct Resting {
    /// The pod's namespace.
    pub namespace: Box<str>,
    /// The pod's name.
    pub name: Box<str>,
    /// The version of its object.
    pub resource_version: Box<str>,
    /// Its [`PodRecord`], in JSON.
    record: Packed,
    runs: Box<[Box<Run>]>,
}

/// What a worker goes on with.
pub struct Woken {
    /// The object, with the status that the API has.
    pub pod: Arc<Pod>,
    /// What happened to it.
    pub observed: Observed,
    /// The containers that run, by their names.
    pub runs: BTreeMap<String, Box<Run>>,
}

/// Whether the pod may rest, as far as it can be told by what is known of it: all that should run does, and no time comes at
/// which something is to be done. Those whose use of the disk has a limit, and those that are probed, are looked at too often to rest.
pub fn may_rest(pod: &Pod, observed: &Observed) -> bool {
    !spec::is_deleted(pod)
        && !spec::is_static(pod)
        && observed.is_settled()
        && !disk_use::has_limit(pod)
        && !spec::every_container(pod).any(|container| has_probe(&container))
}

fn has_probe(container: &Container) -> bool {
    [&container.startup_probe, &container.readiness_probe, &container.liveness_probe]
        .iter()
        .any(|probe| probe.is_some())
}

impl Resting {
    /// Puts a pod to rest; none if it cannot be written down.
    pub fn new(pod: &Pod, observed: &Observed, runs: &mut BTreeMap<String, Box<Run>>) -> Option<Resting> {
        let record = serde_json::to_vec(&PodRecord { pod, observed }).ok()?;
        Some(Resting {
            namespace: spec::namespace(pod).into(),
            name: spec::name(pod).into(),
            resource_version: pod.metadata.resource_version.as_deref().unwrap_or_default().into(),
            record: Packed::new(&record),
            runs: std::mem::take(runs).into_values().collect(),
        })
    }

    /// The pod as its worker would show it.
    pub fn view(&self) -> PodView {
        PodView { pod: Arc::new(self.record().pod), is_quiet: self.runs.is_empty(), is_reported: true }
    }

    /// What its worker goes on with.
    pub fn wake(self) -> Woken {
        let PodRecord { pod, mut observed } = self.record();
        observed.settle();
        let runs = self.runs.into_iter().map(|run| (run.container().to_owned(), run)).collect();
        Woken { pod: Arc::new(pod), observed, runs }
    }

    /// Whether something of it runs.
    pub fn is_busy(&self) -> bool {
        !self.runs.is_empty()
    }

    fn record(&self) -> PodRecord {
        serde_json::from_slice(&self.record.bytes()).expect("it was written from the same types")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(container: &serde_json::Value) -> Pod {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7"});
        let spec = json!({"containers": [container]});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
    }

    fn running() -> Observed {
        let running = json!({"id": "1", "since": "2026-01-01T00:00:00.5Z", "is_started": true, "is_ready": true,
            "unhealthy": null, "kill_at": null, "is_killed": false});
        let container =
            json!({"image_id": "i@sha256:0", "state": {"Running": running}, "last": null, "restarts": 2, "crashes": 0});
        let observed = json!({"started_at": "2026-01-01T00:00:00.25Z", "address": "10.64.0.2", "refusal": null, "doom": null,
            "is_gone": false, "containers": {"c": container}});
        let mut observed: Observed = serde_json::from_value(observed).expect("an observation");
        observed.settle();
        observed
    }

    #[test]
    fn a_function_that_is_ready_rests_and_wakes_as_it_was() {
        let (pod, observed) = (pod(&json!({"name": "c"})), running());
        assert!(may_rest(&pod, &observed));
        let resting = Resting::new(&pod, &observed, &mut BTreeMap::new()).expect("it is written down");
        assert_eq!((&*resting.namespace, &*resting.name, &*resting.resource_version), ("shop", "web", "7"));
        assert_eq!(*resting.view().pod, pod);
        let woken = resting.wake();
        assert_eq!((&*woken.pod, &woken.observed), (&pod, &observed));
    }

    #[test]
    fn who_is_looked_at_all_the_time_does_not_rest() {
        let probed = pod(&json!({"name": "c", "readinessProbe": {"httpGet": {"port": 80}}}));
        let limited = pod(&json!({"name": "c", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}));
        assert!(!may_rest(&probed, &running()) && !may_rest(&limited, &running()));
    }
}
