//! What the node counts, in Prometheus' words: the kubelet's names where it has one, `shoal_` for what only we have.
//!
//! What is a state (pods that run) is looked at when somebody asks; what happens is counted where it happens, by relaxed atomics.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::eviction::threshold::Signal;
use crate::guests::{Durations, GuestStats};
use crate::pod_view::PodView;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From the agent's taking a pod to its running, in seconds: the kubelet's buckets, and shorter ones.
const START_BUCKETS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
    600.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictionLabels {
    eviction_signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    container_state: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    running_pods: Gauge,
    running_containers: Family<StateLabels, Gauge>,
    pod_start: Histogram,
    image_pull: Histogram,
    started_pods: Counter,
    started_containers: Counter,
    start_errors: Counter,
    evictions: Family<EvictionLabels, Gauge<u64, AtomicU64>>,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(node: &str) -> Metrics {
        let metrics = Metrics {
            registry: Registry::default(),
            running_pods: Gauge::default(),
            running_containers: Family::default(),
            pod_start: Histogram::new(START_BUCKETS),
            image_pull: Histogram::new(START_BUCKETS),
            started_pods: Counter::default(),
            started_containers: Counter::default(),
            start_errors: Counter::default(),
            evictions: Family::default(),
        };
        metrics.registered(node)
    }

    fn registered(mut self, node: &str) -> Metrics {
        let name = Family::<NodeLabels, Gauge>::default();
        name.get_or_create(&NodeLabels { node: node.to_owned() }).set(1);
        let registry = &mut self.registry;
        registry.register("kubelet_node_name", "The node's name. The count is always 1", name);
        registry.register(
            "kubelet_running_pods",
            "Number of pods of which a container runs",
            self.running_pods.clone(),
        );
        registry.register(
            "kubelet_running_containers",
            "Number of containers by their state",
            self.running_containers.clone(),
        );
        registry.register(
            "kubelet_pod_start_duration_seconds",
            "Duration in seconds from the agent's taking a pod to its running",
            self.pod_start.clone(),
        );
        registry.register(
            "kubelet_image_pull_duration_seconds",
            "Duration in seconds to fetch an image and make it ready to run",
            self.image_pull.clone(),
        );
        registry.register("kubelet_started_pods", "Pods that began to run", self.started_pods.clone());
        registry.register(
            "kubelet_started_containers",
            "Containers that were started",
            self.started_containers.clone(),
        );
        registry.register(
            "kubelet_started_containers_errors",
            "Containers that could not be started",
            self.start_errors.clone(),
        );
        // The kubelet's counter has no `_total`, which a counter would be given here.
        registry.register(
            "kubelet_evictions",
            "Pods evicted by the signal that the node was short of; limit is a limit of the pod's own",
            self.evictions.clone(),
        );
        self
    }

    /// A pod was evicted.
    pub fn evicted(&self, signal: Option<Signal>) {
        let eviction_signal = signal.map_or("limit", Signal::name);
        self.evictions.get_or_create(&EvictionLabels { eviction_signal }).inc();
    }

    /// A pod runs, so long after the agent took it.
    pub fn pod_started(&self, after: Duration) {
        self.started_pods.inc();
        self.pod_start.observe(after.as_secs_f64());
    }

    /// A container was started, or could not be.
    pub fn container_started(&self, is_well: bool) {
        self.started_containers.inc();
        if !is_well {
            self.start_errors.inc();
        }
    }

    /// An image was fetched.
    pub fn image_pulled(&self, took: Duration) {
        self.image_pull.observe(took.as_secs_f64());
    }

    /// All of it as text, with these pods on the node and what the engine has counted.
    pub fn text(&self, pods: &[PodView], guests: GuestStats) -> String {
        self.note_pods(pods);
        let mut text = String::new();
        let mut of_guests = Registry::default();
        of_guests.register_collector(Box::new(Guests(guests)));
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &self.registry);
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &of_guests);
        let _ = prometheus_client::encoding::text::encode_eof(&mut text);
        text
    }

    fn note_pods(&self, pods: &[PodView]) {
        let statuses = |view: &PodView| {
            let status = view.pod.status.clone().unwrap_or_default();
            status
                .container_statuses
                .into_iter()
                .chain(status.init_container_statuses)
                .flatten()
                .filter_map(|c| c.state)
        };
        let runs = |view: &PodView| statuses(view).any(|state| state.running.is_some());
        self.running_pods.set(count(pods.iter().filter(|view| runs(view)).count()));
        let states: Vec<_> = pods.iter().flat_map(statuses).collect();
        let running = states.iter().filter(|state| state.running.is_some()).count();
        let exited = states.iter().filter(|state| state.terminated.is_some()).count();
        let waiting = states.len() - running - exited;
        for (container_state, number) in [("running", running), ("exited", exited), ("created", waiting)] {
            self.running_containers.get_or_create(&StateLabels { container_state }).set(count(number));
        }
    }
}

/// What the engine has counted, as metrics.
#[derive(Debug)]
struct Guests(GuestStats);

impl Collector for Guests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Guests(stats) = self;
        let name = "shoal_instantiate_duration_seconds";
        durations(&mut encoder, name, "Time to make an instance of a function", &stats.instantiations)?;
        let name = "shoal_module_load_duration_seconds";
        durations(&mut encoder, name, "Time to make a module ready: load or compile it", &stats.loads)?;
        let mut requests =
            encoder.encode_descriptor("shoal_function_requests", "Requests by outcome", None, MetricType::Counter)?;
        for (outcome, number) in &stats.requests {
            let labels = [("outcome", *outcome)];
            requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(number, None)?;
        }
        let help = "Instances of functions, and processes, now";
        let instances = encoder.encode_descriptor("shoal_instances", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(stats.instances).unwrap_or(i64::MAX)).encode(instances)?;
        let help = "Functions of WASI 0.2 whose code is in memory";
        let loaded = encoder.encode_descriptor("shoal_loaded_functions", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(stats.loaded_functions).unwrap_or(i64::MAX)).encode(loaded)?;
        let help = "Requests that found too many before them";
        let refusals = encoder.encode_descriptor("shoal_queue_refusals", help, None, MetricType::Counter)?;
        ConstCounter::new(stats.refusals).encode(refusals)
    }
}

fn durations(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, of: &Durations) -> std::fmt::Result {
    let mut histogram = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    histogram.encode_histogram::<NoLabelSet>(of.sum, of.count, &of.buckets, None)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_has_the_kubelet_s_series() {
        let metrics = Metrics::new("w1");
        metrics.evicted(Some(Signal::MemoryAvailable));
        metrics.evicted(None);
        metrics.pod_started(Duration::from_millis(3));
        metrics.container_started(false);
        let status = json!({"containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]});
        let pod = serde_json::from_value(json!({"status": status})).expect("a pod");
        let buckets = vec![(0.001, 2), (f64::INFINITY, 1)];
        let stats = GuestStats {
            instantiations: Durations { buckets, sum: 3.5, count: 3 },
            requests: vec![("trapped", 4)],
            instances: 5,
            loaded_functions: 7,
            refusals: 6,
            ..GuestStats::default()
        };
        let text = metrics.text(&[PodView::new(&Arc::new(pod))], stats);
        for line in [
            "kubelet_node_name{node=\"w1\"} 1",
            "kubelet_running_pods 1",
            "kubelet_running_containers{container_state=\"running\"} 1",
            "kubelet_running_containers{container_state=\"exited\"} 1",
            "kubelet_running_containers{container_state=\"created\"} 0",
            "kubelet_evictions{eviction_signal=\"memory.available\"} 1",
            "kubelet_evictions{eviction_signal=\"limit\"} 1",
            "kubelet_pod_start_duration_seconds_bucket{le=\"0.005\"} 1",
            "kubelet_started_containers_errors_total 1",
            "shoal_instantiate_duration_seconds_bucket{le=\"0.001\"} 2",
            "shoal_instantiate_duration_seconds_bucket{le=\"+Inf\"} 3",
            "shoal_instantiate_duration_seconds_count 3",
            "shoal_function_requests_total{outcome=\"trapped\"} 4",
            "shoal_instances 5",
            "shoal_loaded_functions 7",
            "shoal_queue_refusals_total 6",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
