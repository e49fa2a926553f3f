//! `shoal server`: one control-plane server, in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use shoal_controlplane::{ConfigFile, JoinRole, Profile, Server};

/// Run one control-plane server.
///
/// The first server makes the cluster's CA and prints the join tokens; the others are given one with --join.
#[derive(Args)]
#[command(after_help = "\
Examples:
  shoal server --data-dir /var/lib/shoal --api-address 10.0.0.1:6443
  shoal server --data-dir /var/lib/shoal --api-address 10.0.0.2:6443 --join 10.0.0.1:6443 --token shoal1.s.…
  shoal server --config /etc/shoal/server.toml")]
pub struct ServerArguments {
    /// A TOML file with the same words as the flags, with _ for -; a flag overrides it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where its identity, its log and its images are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Its name, another one for each server [default: the host's name].
    #[arg(long)]
    name: Option<String>,
    /// Where the API listens (TCP) [default: 127.0.0.1:6443].
    #[arg(long, value_name = "ADDRESS")]
    api_address: Option<SocketAddr>,
    /// Where servers and workers are awaited (UDP) [default: the API's address].
    #[arg(long, value_name = "ADDRESS")]
    link_address: Option<SocketAddr>,
    /// The host under which others reach it, where that is not the address it listens on.
    #[arg(long, value_name = "HOST")]
    advertise_host: Option<String>,
    /// Addresses of servers to join.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    join: Vec<String>,
    /// The token to join with.
    #[arg(long, env = "SHOAL_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token to join with.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How patient the servers are with one another: lan or edge [default: lan].
    #[arg(long, value_parser = ["lan", "edge"])]
    profile: Option<String>,
}

impl ServerArguments {
    /// Runs the server until it is asked to end, or can no longer go on.
    pub fn run(self) -> anyhow::Result<()> {
        super::start_logging()?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.serve())
    }

    #[expect(clippy::print_stdout, reason = "the first tokens are printed, for a person to hand on")]
    async fn serve(self) -> anyhow::Result<()> {
        let is_first = self.join.is_empty();
        let server = Server::start(self.config()?.into_config()?).await.context("failed to start the server")?;
        if is_first {
            for role in [JoinRole::Server, JoinRole::Worker] {
                if let Some(token) = server.first_token(role) {
                    println!(
                        "a {} joins with --join {} --token {token}",
                        format!("{role:?}").to_lowercase(),
                        server.link_address()
                    );
                }
            }
        }
        let outcome = tokio::select! {
            signal = super::asked_to_end() => signal.map(|signal| tracing::info!(signal, "the server ends")),
            reason = server.failed() => Err(anyhow::anyhow!("the server cannot go on: {reason}")),
        };
        server.shutdown().await;
        outcome
    }

    /// The file's words, overridden by the flags.
    fn config(self) -> anyhow::Result<ConfigFile> {
        let mut file = self.config.as_deref().map(ConfigFile::load).transpose()?.unwrap_or_default();
        let token = super::token_from(self.token, self.token_file.as_deref())?;
        file.data_dir = self.data_dir.or(file.data_dir);
        file.name = self.name.or(file.name);
        file.api_address = self.api_address.or(file.api_address);
        file.link_address = self.link_address.or(file.link_address);
        file.advertise_host = self.advertise_host.or(file.advertise_host);
        file.token = token.or(file.token);
        if !self.join.is_empty() {
            file.join = self.join;
        }
        if let Some(profile) = self.profile {
            file.timing = Some(if profile == "edge" { Profile::Edge } else { Profile::Lan });
        }
        Ok(file)
    }
}
