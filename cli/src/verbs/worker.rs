//! `shoal worker`: one worker, in the foreground.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use shoal_runtime::{Agent, AgentConfig, Pace};

/// Run one worker.
///
/// It dials the servers and needs no port that they can reach; once it has joined it starts its pods without them, too.
#[derive(Args)]
#[command(after_help = "\
Examples:
  shoal worker --data-dir /var/lib/shoal --join 10.0.0.1:6443,10.0.0.2:6443 --token shoal1.w.…
  shoal worker --config /etc/shoal/worker.toml")]
pub struct WorkerArguments {
    /// A TOML file with the same settings; a flag overrides it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The node's name [default: the host's name].
    #[arg(long)]
    name: Option<String>,
    /// Addresses of servers.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    join: Vec<String>,
    /// The token to join with; needed on the first start only.
    #[arg(long, env = "SHOAL_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token to join with.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The node's own address, where its NodePorts listen and other workers reach it.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Labels for the node, as NAME=VALUE.
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    label: Vec<String>,
    /// How many pods the node runs at most [default: 250]. When it joins it gets a network with room for so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    max_pods: Option<u32>,
    /// A directory of this machine below which pods may have any as hostPath; may be given several times [default: none].
    #[arg(long, value_name = "PREFIX")]
    allow_host_path: Vec<PathBuf>,
    /// A directory in memory for emptyDir volumes with medium: Memory [default: /dev/shm, if the machine has it].
    #[arg(long, value_name = "DIR")]
    memory_dir: Option<PathBuf>,
    /// Let pods share this node's address and take ports of it (hostNetwork) [default: refused].
    #[arg(long)]
    allow_host_network: bool,
    /// How often it reports: lan (a lost node is noticed within seconds) or edge [default: edge].
    #[arg(long, value_parser = ["lan", "edge"])]
    profile: Option<String>,
    /// Below what the node ends pods to save itself; an empty text is never [default: as in Kubernetes].
    ///
    /// The signals are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available.
    #[arg(long, value_name = "SIGNAL<LEVEL,...")]
    eviction_hard: Option<String>,
    /// Below what it does so once that has lasted for a grace period [default: none].
    #[arg(long, value_name = "SIGNAL<LEVEL,...")]
    eviction_soft: Option<String>,
    /// How long each soft threshold must be met before pods go for it, such as memory.available=1m30s.
    #[arg(long, value_name = "SIGNAL=DURATION,...")]
    eviction_soft_grace_period: Option<String>,
    /// How many seconds a pod that goes for a soft threshold may take to end at most; below zero as many as it wants [default: 0].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    eviction_max_pod_grace_period: Option<i64>,
    /// How much more than its threshold there must be of something before no pod goes for it any more, such as
    /// nodefs.available=2Gi [default: none].
    #[arg(long, value_name = "SIGNAL=LEVEL,...")]
    eviction_minimum_reclaim: Option<String>,
    /// How full the images' file system may be before images that no pod uses are removed, in per cent [default: 85].
    #[arg(long, value_name = "PERCENT")]
    image_gc_high: Option<u8>,
    /// How full it is to be after that, in per cent [default: 80].
    #[arg(long, value_name = "PERCENT")]
    image_gc_low: Option<u8>,
    /// How long a pressure condition lasts after what caused it [default: 5m].
    #[arg(long, value_name = "DURATION")]
    eviction_pressure_transition_period: Option<String>,
    /// What pods do not get of cpu, memory and ephemeral-storage.
    #[arg(long, value_name = "RESOURCE=QUANTITY", value_delimiter = ',')]
    system_reserved: Vec<String>,
    /// A directory of manifests of pods that this node runs whatever the control plane says (static pods).
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,
    /// On SIGTERM or SIGINT end the pods within this time and let them have failed, as for a machine that is switched off
    /// [default: 0, the pods stay and start again with the next start of the worker].
    #[arg(long, value_name = "DURATION")]
    shutdown_grace_period: Option<String>,
    /// How much of that is kept for critical pods.
    #[arg(long, value_name = "DURATION")]
    shutdown_grace_period_critical_pods: Option<String>,
    /// Where the node answers /healthz, /pods, /metrics, /stats/summary and logs without the control plane, such as
    /// 127.0.0.1:10255; port 0 takes a free one [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    local_api: Option<SocketAddr>,
}

impl WorkerArguments {
    /// Runs the worker until it is asked to end.
    pub fn run(self) -> anyhow::Result<()> {
        shoal_runtime::few_arenas();
        super::start_logging()?;
        let config = self.config()?;
        // The agent has little to do; guests have threads of their own.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let agent = Agent::start(config).await.context("failed to start the worker")?;
            let signal = super::asked_to_end().await?;
            tracing::info!(signal, "the worker ends");
            agent.shutdown().await;
            Ok(())
        })
    }

    /// The file's settings, overridden by the flags.
    fn config(self) -> anyhow::Result<AgentConfig> {
        let mut config = match &self.config {
            None => AgentConfig::default(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
                toml::from_str(&text).with_context(|| format!("failed to understand {}", path.display()))?
            }
        };
        config.token = super::token_from(self.token, self.token_file.as_deref())?.or(config.token);
        if let Some(directory) = self.data_dir {
            config.data_dir = directory;
        }
        if let Some(name) = self.name {
            config.node_name = name;
        }
        if !self.join.is_empty() {
            config.servers = self.join;
        }
        if let Some(address) = self.address {
            config.node_address = address;
        }
        config.pods = self.max_pods.unwrap_or(config.pods);
        for prefix in self.allow_host_path {
            anyhow::ensure!(prefix.is_absolute(), "--allow-host-path {} must begin with a slash", prefix.display());
            config.allow_host_path.push(prefix);
        }
        if let Some(directory) = self.memory_dir {
            anyhow::ensure!(directory.is_dir(), "--memory-dir {} is no directory", directory.display());
            config.memory_dir = Some(directory);
        }
        config.allow_host_network |= self.allow_host_network;
        for label in self.label {
            let (name, value) =
                label.split_once('=').with_context(|| format!("--label {label:?} is not of the form NAME=VALUE"))?;
            config.labels.insert(name.to_string(), value.to_string());
        }
        match self.profile.as_deref() {
            Some("lan") => config.pace = Pace::lan(),
            Some(_) => config.pace = Pace::default(),
            None => {}
        }
        if let Some(text) = self.eviction_hard {
            config.eviction_hard = text.parse().context("--eviction-hard")?;
        }
        if let Some(text) = self.eviction_soft {
            config.eviction_soft = text.parse().context("--eviction-soft")?;
        }
        if let Some(text) = self.eviction_soft_grace_period {
            config.eviction_soft_grace_period = text.parse().context("--eviction-soft-grace-period")?;
        }
        if let Some(text) = self.eviction_minimum_reclaim {
            config.eviction_minimum_reclaim = text.parse().context("--eviction-minimum-reclaim")?;
        }
        config.eviction_max_pod_grace_s = self.eviction_max_pod_grace_period.unwrap_or(config.eviction_max_pod_grace_s);
        config.image_gc_high = self.image_gc_high.unwrap_or(config.image_gc_high);
        config.image_gc_low = self.image_gc_low.unwrap_or(config.image_gc_low);
        for pair in self.system_reserved {
            let (resource, quantity) = pair
                .split_once('=')
                .with_context(|| format!("--system-reserved {pair:?} is not of the form RESOURCE=QUANTITY"))?;
            config.system_reserved.insert(resource.to_string(), quantity.to_string());
        }
        let seconds = |flag: &str, text: Option<String>, given: &mut u64| -> anyhow::Result<()> {
            if let Some(text) = text {
                *given = seconds(&text).with_context(|| format!("{flag} {text:?}"))?;
            }
            Ok(())
        };
        let period = self.eviction_pressure_transition_period;
        seconds("--eviction-pressure-transition-period", period, &mut config.eviction_transition_s)?;
        seconds("--shutdown-grace-period", self.shutdown_grace_period, &mut config.shutdown_grace_s)?;
        let critical = self.shutdown_grace_period_critical_pods;
        seconds("--shutdown-grace-period-critical-pods", critical, &mut config.shutdown_grace_critical_s)?;
        config.pod_manifest_path = self.pod_manifest_path.or(config.pod_manifest_path);
        config.local_api = self.local_api.or(config.local_api);
        Ok(config)
    }
}

/// A duration such as 30s or 1m30s, in whole seconds.
fn seconds(text: &str) -> anyhow::Result<u64> {
    let duration: jiff::SignedDuration = text.parse().context("a duration is written as 30s or 1m30s")?;
    u64::try_from(duration.as_secs()).context("a duration is not below zero")
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_are_written_as_everywhere_in_kubernetes() {
        for (text, expected) in [("30s", 30), ("1m30s", 90), ("5m0s", 300), ("0s", 0)] {
            assert_eq!(seconds(text).ok(), Some(expected), "{text}");
        }
        assert!(seconds("-1s").is_err() && seconds("soon").is_err());
    }
}
