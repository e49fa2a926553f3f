//! Who this worker is: its certificate, kept in its data directory, or got by a join token on the first start.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use shoal_link::Identity;
use shoal_link::join::{JoinError, JoinReply, Wish};
use shoal_link::token::JoinToken;

use crate::config::AgentConfig;
use crate::local_store::LocalStore;

/// The name of the identity's files.
pub const IDENTITY: &str = "worker";
/// Where the servers' addresses are kept: collection and name.
const KEPT_SERVERS: (&str, &str) = ("node", "servers");
/// Rounds over all servers before joining is given up.
const ROUNDS: u32 = 60;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(500);

/// The identity of a worker that joined before, or joins now.
///
/// # Errors
/// When there is no identity and no token, the token is refused, or no server can be reached for half a minute.
pub async fn identity(config: &AgentConfig, store: &LocalStore) -> anyhow::Result<Identity> {
    let directory = config.data_dir.clone();
    if directory.join(format!("{IDENTITY}.crt")).exists() {
        let identity = Identity::load(&directory, IDENTITY).context("reading the worker's identity")?;
        let name = identity.subject().and_then(|s| s.node_name().map(str::to_owned)).unwrap_or_default();
        if name != config.node_name {
            bail!("the data directory {} belongs to node {name:?}, not {:?}", directory.display(), config.node_name);
        }
        return Ok(identity);
    }
    let Some(token) = &config.token else { bail!("this worker has not joined yet: give it a join token") };
    let token: JoinToken = token
        .trim()
        .parse()
        .map_err(|_| anyhow::anyhow!("the join token is not of the form that `shoal token create` prints"))?;
    let (identity, reply) = join(config, &token).await?;
    save(&identity, &directory)?;
    store.save(KEPT_SERVERS.0, KEPT_SERVERS.1, &reply.servers)?;
    tracing::info!(node = config.node_name, "joined the cluster");
    Ok(identity)
}

fn save(identity: &Identity, directory: &Path) -> anyhow::Result<()> {
    identity.save(directory, IDENTITY).context("keeping the worker's identity")
}

async fn join(config: &AgentConfig, token: &JoinToken) -> anyhow::Result<(Identity, JoinReply)> {
    if config.servers.is_empty() {
        bail!("this worker was told of no server to join");
    }
    let addresses: Vec<IpAddr> = vec![config.node_address];
    let wish = Wish { name: config.node_name.clone(), addresses, details: serde_json::Value::Null };
    let mut last = None;
    for round in 0..ROUNDS {
        for server in &config.servers {
            match shoal_link::join::join(server, token, &wish).await {
                Ok(joined) => return Ok(joined),
                Err(JoinError::Refused(reason)) => bail!("the server {server} refused the worker: {reason}"),
                Err(error) => {
                    // Once for a person who waits; the rest would be the same again.
                    if round == 0 {
                        tracing::warn!(server, %error, "a server cannot be reached; trying again");
                    }
                    last = Some(error);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    match last {
        Some(error) => Err(error).context("joining the cluster"),
        None => bail!("joining the cluster failed"),
    }
}

/// The servers to dial: those of the configuration, then those that the cluster told.
pub fn servers(config: &AgentConfig, store: &LocalStore) -> Vec<String> {
    let told: Vec<String> = store.load(KEPT_SERVERS.0, KEPT_SERVERS.1).unwrap_or_default();
    let mut servers = config.servers.clone();
    servers.extend(told.into_iter().filter(|server| !config.servers.contains(server)));
    servers
}
