//! `shoal server`: one control-plane server, in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use shoal_controlplane::{ConfigFile, JoinRole, Profile, Server, ServerConfig};

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
    /// The file of the keys with which files are sealed [default: encryption.keys in the data directory].
    #[arg(long, value_name = "FILE")]
    encryption_keys: Option<PathBuf>,
    /// Put what the store has on disk aside and begin anew from the other servers, under a new member id.
    #[arg(long)]
    repair: bool,
    /// How many MiB of objects the store takes before it takes nothing but deletes [default: 1024].
    #[arg(long, value_name = "MIB")]
    store_mib: Option<u64>,
    /// How many changes can be watched from and looked back to [default: 20000].
    #[arg(long, value_name = "N")]
    history_changes: Option<usize>,
    /// How many MiB of former objects are kept for that [default: 64].
    #[arg(long, value_name = "MIB")]
    history_mib: Option<u64>,
    /// How many minutes an event stays [default: 60].
    #[arg(long, value_name = "MINUTES")]
    event_minutes: Option<u64>,
    /// Make backups by itself, in this folder.
    #[arg(long, value_name = "DIR")]
    backup_dir: Option<PathBuf>,
    /// How many hours there are from one backup to the next [default: 6].
    #[arg(long, value_name = "HOURS")]
    backup_hours: Option<u64>,
    /// How many backups are kept [default: 8].
    #[arg(long, value_name = "N")]
    backup_keep: Option<usize>,
    /// A file with the passphrase under which the CA and the encryption keys are in the backups too.
    #[arg(long, value_name = "FILE")]
    backup_passphrase_file: Option<PathBuf>,
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
        let (is_first, repair) = (self.join.is_empty(), self.repair);
        let config = ServerConfig { repair, ..self.config()?.into_config()? };
        let server = Server::start(config).await.context("failed to start the server")?;
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
        file.encryption_keys = self.encryption_keys.or(file.encryption_keys);
        file.store_mib = self.store_mib.or(file.store_mib);
        file.history_changes = self.history_changes.or(file.history_changes);
        file.history_mib = self.history_mib.or(file.history_mib);
        file.event_minutes = self.event_minutes.or(file.event_minutes);
        file.backup_dir = self.backup_dir.or(file.backup_dir);
        file.backup_hours = self.backup_hours.or(file.backup_hours);
        file.backup_keep = self.backup_keep.or(file.backup_keep);
        file.backup_passphrase_file = self.backup_passphrase_file.or(file.backup_passphrase_file);
        if !self.join.is_empty() {
            file.join = self.join;
        }
        if let Some(profile) = self.profile {
            file.timing = Some(if profile == "edge" { Profile::Edge } else { Profile::Lan });
        }
        Ok(file)
    }
}
