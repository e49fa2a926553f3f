//! `shoal worker`: one worker, in the foreground.

use std::net::IpAddr;
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
    /// How often it reports: lan (a lost node is noticed within seconds) or edge [default: edge].
    #[arg(long, value_parser = ["lan", "edge"])]
    profile: Option<String>,
}

impl WorkerArguments {
    /// Runs the worker until it is asked to end.
    pub fn run(self) -> anyhow::Result<()> {
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
        Ok(config)
    }
}
