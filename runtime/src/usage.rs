//! What the node and its containers use: a look at every one now and then, and what two of them say. Told in the kubelet's words, as a
//! summary in JSON and as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::disk_use::{PodDisk, Used};
use crate::eviction::threshold::Readings;
use crate::guests::Usage;
use crate::limits::USAGE_PERIOD;
use crate::pod::spec;
use crate::summary;

/// A container: its pod's uid and its name.
pub type ContainerKey = (String, String);

/// Everything on this node whose use is looked at.
pub struct Usages {
    inner: Mutex<Inner>,
}

struct Inner {
    node: Watched,
    containers: BTreeMap<ContainerKey, Watched>,
    /// When the last look was.
    at: Timestamp,
    /// What each pod uses of the disk, by uid.
    disk: BTreeMap<String, PodDisk>,
    /// What the node has left.
    readings: Readings,
}

struct Watched {
    source: Arc<dyn Usage>,
    since: Timestamp,
    last: Option<Look>,
    /// Billionths of a core, between the last two looks.
    rate: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    cpu: Duration,
}

/// Billionths of a core that were used from one look to the next; none where the time stood still or ran backwards.
fn rate(before: Look, now: Look) -> Option<u64> {
    let (used, passed) = (now.cpu.checked_sub(before.cpu)?, now.at.checked_duration_since(before.at)?);
    u64::try_from(used.as_nanos().checked_mul(1_000_000_000)?.checked_div(passed.as_nanos())?).ok()
}

impl Watched {
    fn new(source: Arc<dyn Usage>) -> Watched {
        Watched { source, since: Timestamp::now(), last: None, rate: None }
    }

    fn look(&mut self, at: Instant) {
        let now = Look { at, cpu: self.source.cpu_time() };
        self.rate = self.last.and_then(|before| rate(before, now));
        self.last = Some(now);
    }

    fn told(&self, at: Timestamp) -> Value {
        let memory = self.source.memory_bytes();
        let mut cpu = json!({"time": text(at), "usageCoreNanoSeconds": nanoseconds(self.source.cpu_time())});
        if let Some(rate) = self.rate {
            cpu["usageNanoCores"] = rate.into();
            cpu["usageWindowSeconds"] = USAGE_PERIOD.as_secs().into();
        }
        json!({
            "startTime": text(self.since),
            "cpu": cpu,
            "memory": {"time": text(at), "usageBytes": memory, "workingSetBytes": memory},
        })
    }
}

impl Usages {
    /// With the node itself, and no container.
    pub fn new(node: Arc<dyn Usage>) -> Usages {
        let inner = Inner {
            node: Watched::new(node),
            containers: BTreeMap::new(),
            at: Timestamp::now(),
            disk: BTreeMap::new(),
            readings: Readings::new(),
        };
        Usages { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run of a container begins; what is known of the run before is forgotten.
    pub fn add(&self, key: ContainerKey, source: Arc<dyn Usage>) {
        self.lock().containers.insert(key, Watched::new(source));
    }

    /// The run that `source` is of is over.
    pub fn remove(&self, key: &ContainerKey, source: &Arc<dyn Usage>) {
        let mut inner = self.lock();
        if inner.containers.get(key).is_some_and(|watched| Arc::ptr_eq(&watched.source, source)) {
            inner.containers.remove(key);
        }
    }

    /// Takes what was found on the disk: of all pods (`is_whole`), or of some.
    pub fn set_disk(&self, disk: BTreeMap<String, PodDisk>, readings: Readings, is_whole: bool) {
        let mut inner = self.lock();
        inner.readings = readings;
        if is_whole {
            inner.disk = disk;
        } else {
            inner.disk.extend(disk);
        }
    }

    /// The memory of a pod's containers now, by their names.
    pub fn memory_of(&self, uid: &str) -> BTreeMap<String, u64> {
        let inner = self.lock();
        let of_pod = containers(&inner, uid);
        of_pod.map(|(name, watched)| (name.to_owned(), watched.source.memory_bytes())).collect()
    }

    /// Looks again and again.
    pub async fn keep_looking(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(USAGE_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(Instant::now());
        }
    }

    fn look(&self, at: Instant) {
        let mut inner = self.lock();
        inner.at = Timestamp::now();
        inner.node.look(at);
        inner.containers.values_mut().for_each(|watched| watched.look(at));
    }

    /// The kubelet's `/stats/summary`: the node, and the containers of these pods.
    pub fn summary(&self, node: &str, pods: &[Arc<Pod>]) -> Value {
        let inner = self.lock();
        let of_pod = |pod: &Arc<Pod>| {
            let disk = inner.disk.get(spec::uid(pod));
            let containers: Vec<Value> = containers(&inner, spec::uid(pod))
                .map(|(name, watched)| {
                    let mut told = watched.told(inner.at);
                    told["name"] = name.into();
                    if let Some(logs) = disk.and_then(|disk| disk.logs.get(name)) {
                        told["logs"] = summary::used(*logs, &inner.readings, inner.at);
                        told["rootfs"] = summary::used(Used::default(), &inner.readings, inner.at);
                    }
                    told
                })
                .collect();
            let mut told = json!({
                "podRef": {"name": spec::name(pod), "namespace": spec::namespace(pod), "uid": spec::uid(pod)},
                "containers": containers,
            });
            if let Some(disk) = disk {
                told["ephemeral-storage"] = summary::used(disk.ephemeral(pod), &inner.readings, inner.at);
                told["volume"] = summary::volumes(disk, &inner.readings, inner.at);
            }
            told
        };
        let mut own = inner.node.told(inner.at);
        summary::add_node(&mut own, &inner.readings, inner.at);
        own["nodeName"] = node.into();
        json!({"node": own, "pods": pods.iter().map(of_pod).collect::<Vec<_>>()})
    }

    /// The kubelet's `/metrics/resource`, in Prometheus' text form.
    pub fn metrics(&self, pods: &[Arc<Pod>]) -> String {
        let inner = self.lock();
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Watched) -> f64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            if name.starts_with("node_") {
                let _ = writeln!(out, "{name} {}", value(&inner.node));
                return;
            }
            for pod in pods {
                let (pod_name, namespace) = (spec::name(pod), spec::namespace(pod));
                for (container, watched) in containers(&inner, spec::uid(pod)) {
                    let labels = format!("container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod_name}\"");
                    let _ = writeln!(out, "{name}{{{labels}}} {}", value(watched));
                }
            }
        };
        let cpu = |watched: &Watched| watched.source.cpu_time().as_secs_f64();
        let memory = |watched: &Watched| watched.source.memory_bytes() as f64;
        let since = |watched: &Watched| watched.since.as_millisecond() as f64 / 1_000.0;
        let cpu_help = "Cumulative CPU time consumed in core-seconds";
        let memory_help = "Current memory use in bytes";
        family("container_cpu_usage_seconds_total", "counter", cpu_help, &cpu);
        family("container_memory_working_set_bytes", "gauge", memory_help, &memory);
        family("container_start_time_seconds", "gauge", "Start time of the container since 1970 in seconds", &since);
        family("node_cpu_usage_seconds_total", "counter", cpu_help, &cpu);
        family("node_memory_working_set_bytes", "gauge", memory_help, &memory);
        out
    }
}

fn containers<'a>(inner: &'a Inner, uid: &'a str) -> impl Iterator<Item = (&'a str, &'a Watched)> {
    let first = (uid.to_owned(), String::new());
    let own = inner.containers.range(first..).take_while(move |((of, _), _)| of == uid);
    own.map(|((_, name), watched)| (name.as_str(), watched))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// RFC 3339, in seconds, as Kubernetes writes times.
pub(crate) fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What this process uses, with all that runs in it: as a node is what its worker is.
pub struct ThisProcess;

impl Usage for ThisProcess {
    fn cpu_time(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }

    fn memory_bytes(&self) -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        pages * rustix::param::page_size() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Told(AtomicU64);

    impl Usage for Told {
        fn cpu_time(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn memory_bytes(&self) -> u64 {
            4096
        }
    }

    fn pod() -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": {"containers": []}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_rate_is_what_two_looks_say() {
        let (told, begin) = (Arc::new(Told::default()), Instant::now());
        let source: Arc<dyn Usage> = told.clone();
        let usages = Usages::new(Arc::new(Told::default()));
        let key = ("u".to_owned(), "c".to_owned());
        usages.add(key.clone(), Arc::clone(&source));
        usages.look(begin);
        let summary = usages.summary("w1", &[pod()]);
        assert_eq!(summary["pods"][0]["containers"][0]["cpu"].get("usageNanoCores"), None);
        told.0.store(250, Ordering::Relaxed);
        usages.look(begin + Duration::from_millis(500));
        let summary = usages.summary("w1", &[pod()]);
        let container = &summary["pods"][0]["containers"][0];
        assert_eq!((&container["name"], &container["cpu"]["usageNanoCores"]), (&json!("c"), &json!(500_000_000)));
        assert_eq!(container["memory"]["workingSetBytes"], 4096);
        let metrics = usages.metrics(&[pod()]);
        let line = "container_cpu_usage_seconds_total{container=\"c\",namespace=\"shop\",pod=\"web\"} 0.25";
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
        usages.remove(&key, &(Arc::new(Told::default()) as Arc<dyn Usage>));
        assert!(usages.metrics(&[pod()]).contains(line), "another run's end is not this one's");
        usages.remove(&key, &source);
        assert!(!usages.metrics(&[pod()]).contains(line));
    }

    #[test]
    fn this_process_uses_something() {
        assert!(ThisProcess.memory_bytes() > 1 << 20 && ThisProcess.cpu_time() > Duration::ZERO);
    }
}
