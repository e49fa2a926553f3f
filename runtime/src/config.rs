//! What an agent is told when it starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use shoal_api::quantity::Quantity;

use crate::eviction::by_signal::BySignal;
use crate::eviction::threshold::{Level, Thresholds};
use crate::eviction::watch::Policy;
use crate::limits::DEFAULT_PODS;

/// The configuration of one worker; also the form of its configuration file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The node's name; empty means the machine's host name.
    pub node_name: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The servers' link addresses, `host:port`. Those that a server tells later are added.
    pub servers: Vec<String>,
    /// The join token; needed on the first start only.
    pub token: Option<String>,
    /// The address of this node: its NodePorts and its QUIC endpoint are there.
    pub node_address: IpAddr,
    /// The UDP port of the QUIC endpoint for other workers; 0 lets the system choose.
    pub link_port: u16,
    /// More labels for the Node.
    pub labels: BTreeMap<String, String>,
    /// CPU to offer, in thousandths of a core; 0 means the machine's.
    pub cpu_millis: u64,
    /// Memory to offer, in bytes; 0 means the machine's.
    pub memory_bytes: u64,
    /// Pods to offer.
    pub pods: u32,
    /// The directories of this machine below which pods may have any (`hostPath`, and volumes that are made by hand); none if empty.
    pub allow_host_path: Vec<PathBuf>,
    /// A directory in memory for the volumes that are to be there; none means `/dev/shm`, if the machine has it.
    pub memory_dir: Option<PathBuf>,
    /// Whether pods may share the node's network (`hostNetwork`).
    pub allow_host_network: bool,
    /// How often things are said.
    pub pace: Pace,
    /// Below what the node ends pods to save itself, as the kubelet's `evictionHard`; an empty text is never.
    pub eviction_hard: Thresholds,
    /// Below what it does so after a grace period, as the kubelet's `evictionSoft`.
    pub eviction_soft: Thresholds,
    /// How long each soft threshold is met before pods go for it.
    pub eviction_soft_grace_period: BySignal<SignedDuration>,
    /// How long a pod that goes for a soft threshold may take to end at most, in seconds; below zero as long as it wants.
    pub eviction_max_pod_grace_s: i64,
    /// By how much more than its threshold there must be of something before no pod goes for it any more.
    pub eviction_minimum_reclaim: BySignal<Level>,
    /// How full the images' file system may be, in hundredths, before unused images are removed.
    pub image_gc_high: u8,
    /// How full it is after that.
    pub image_gc_low: u8,
    /// How long a pressure condition lasts after what caused it, in seconds.
    pub eviction_transition_s: u64,
    /// What is kept back from pods by resource: `cpu`, `memory`, `ephemeral-storage`.
    pub system_reserved: BTreeMap<String, String>,
    /// Where manifests of pods are that run whatever the API says.
    pub pod_manifest_path: Option<PathBuf>,
    /// How long the pods may take to end when the agent is asked to; 0 leaves them to start again with the next agent.
    pub shutdown_grace_s: u64,
    /// How much of that is kept for critical pods.
    pub shutdown_grace_critical_s: u64,
    /// Where the node answers without the control plane; none is nowhere.
    pub local_api: Option<SocketAddr>,
}

/// How often the agent reports though nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    /// Between two renewals of the Lease, in milliseconds.
    pub lease_ms: u64,
    /// How long a Lease lasts, in seconds.
    pub lease_duration_s: u32,
    /// Between two writes of an unchanged Node status, in seconds.
    pub node_status_s: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { lease_ms: 10_000, lease_duration_s: 40, node_status_s: 300 }
    }
}

impl Pace {
    /// For machines next to one another: a lost node is noticed within seconds.
    pub fn lan() -> Pace {
        Pace { lease_ms: 1_000, lease_duration_s: 4, node_status_s: 60 }
    }

    /// Between two renewals of the Lease.
    pub fn lease(self) -> Duration {
        Duration::from_millis(self.lease_ms.max(100))
    }

    /// Between two writes of an unchanged Node status.
    pub fn node_status(self) -> Duration {
        Duration::from_secs(self.node_status_s.max(1))
    }
}

impl Default for AgentConfig {
    fn default() -> AgentConfig {
        AgentConfig {
            node_name: String::new(),
            data_dir: PathBuf::from("shoal-worker"),
            servers: Vec::new(),
            token: None,
            node_address: IpAddr::from([127, 0, 1, 1]),
            link_port: 0,
            labels: BTreeMap::new(),
            cpu_millis: 0,
            memory_bytes: 0,
            pods: DEFAULT_PODS,
            allow_host_path: Vec::new(),
            memory_dir: None,
            allow_host_network: false,
            pace: Pace::default(),
            eviction_hard: Thresholds::default(),
            eviction_soft: Thresholds::none(),
            eviction_soft_grace_period: BySignal::default(),
            eviction_max_pod_grace_s: 0,
            eviction_minimum_reclaim: BySignal::default(),
            image_gc_high: 85,
            image_gc_low: 80,
            eviction_transition_s: 300,
            system_reserved: BTreeMap::new(),
            pod_manifest_path: None,
            shutdown_grace_s: 0,
            shutdown_grace_critical_s: 0,
            local_api: None,
        }
    }
}

impl AgentConfig {
    /// What is wrong with it.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self) -> Result<(), String> {
        for (resource, text) in &self.system_reserved {
            if !["cpu", "memory", "ephemeral-storage"].contains(&resource.as_str()) {
                return Err(format!("system-reserved: {resource:?} is not cpu, memory or ephemeral-storage"));
            }
            let quantity = text.parse::<Quantity>().ok().filter(|quantity| !quantity.is_negative());
            quantity.ok_or_else(|| format!("system-reserved: {text:?} is no quantity such as 200Mi or 100m"))?;
        }
        let without_grace = |signal: &_| self.eviction_soft_grace_period.get(*signal).is_none();
        if let Some(signal) = self.eviction_soft.signals().find(without_grace) {
            let name = signal.name();
            return Err(format!("eviction-soft: {name} needs a grace period: eviction-soft-grace-period {name}=1m30s"));
        }
        if let Some(address) = self.local_api.filter(|address| !address.ip().is_loopback()) {
            return Err(format!("local-api: {address} is not of this machine alone; take one of 127.0.0.0/8 or [::1]"));
        }
        if self.image_gc_high > 100 || self.image_gc_low >= self.image_gc_high {
            return Err(format!(
                "image-gc-low: {} must be below image-gc-high, {}, and both are hundredths",
                self.image_gc_low, self.image_gc_high
            ));
        }
        if self.shutdown_grace_critical_s > self.shutdown_grace_s {
            return Err(format!(
                "shutdown-grace-period-critical-pods: {} s is more than the {} s of shutdown-grace-period, of which it is a part",
                self.shutdown_grace_critical_s, self.shutdown_grace_s
            ));
        }
        Ok(())
    }

    /// What the node defends itself by.
    pub fn eviction_policy(&self) -> Policy {
        Policy {
            hard: self.eviction_hard.clone(),
            soft: self.eviction_soft.clone(),
            soft_grace: self.eviction_soft_grace_period.clone(),
            minimum_reclaim: self.eviction_minimum_reclaim.clone(),
            longest_pod_grace_s: self.eviction_max_pod_grace_s,
        }
    }

    /// Where the volumes are that outlive pods.
    pub fn kept_volumes(&self) -> PathBuf {
        self.data_dir.join("volumes").join("persistent")
    }

    /// Fills what the machine itself says: its name, its processors, its memory.
    pub fn completed(mut self) -> AgentConfig {
        if self.node_name.is_empty() {
            self.node_name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        }
        // It is told to others, and links lead there.
        if let Ok(absolute) = std::path::absolute(&self.data_dir) {
            self.data_dir = absolute;
        }
        if self.cpu_millis == 0 {
            self.cpu_millis = std::thread::available_parallelism().map_or(1, usize::from) as u64 * 1_000;
        }
        if self.memory_bytes == 0 {
            let info = rustix::system::sysinfo();
            self.memory_bytes = u64::from(info.mem_unit).saturating_mul(info.totalram);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_threshold_needs_a_grace_period() {
        let with = |periods: &str| AgentConfig {
            eviction_soft: "memory.available<1Gi".parse().expect("thresholds"),
            eviction_soft_grace_period: periods.parse().expect("periods"),
            ..AgentConfig::default()
        };
        let told = with("nodefs.available=1m").check().expect_err("memory.available has none");
        assert!(
            told.starts_with("eviction-soft: memory.available") && told.contains("eviction-soft-grace-period"),
            "{told}"
        );
        assert_eq!(with("memory.available=1m30s").check(), Ok(()));
    }
}
