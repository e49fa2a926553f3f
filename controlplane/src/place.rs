//! A server's place among the others: its addresses, and how it comes to count.

use std::net::SocketAddr;

use anyhow::Context as _;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use shoal_link::Pool;
use shoal_link::token::JoinRole;
use shoal_store::Member;
use tokio::time::Instant;

use crate::config::ServerConfig;
use crate::data_dir::{DataDir, Membership};
use crate::server::Core;
use crate::{internal, limits, tokens};

/// Where port 0 was asked for, the port of the last start is used: the other servers know it.
pub(crate) fn use_former_ports(config: &mut ServerConfig, before: &Membership) -> anyhow::Result<()> {
    anyhow::ensure!(
        before.member.name == config.name,
        "{} belongs to server {:?}, not {:?}",
        config.data_dir.display(),
        before.member.name,
        config.name
    );
    for (address, former) in
        [(&mut config.api_address, &before.member.api_address), (&mut config.link_address, &before.member.link_address)]
    {
        if address.port() == 0
            && let Some(port) = former.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
        {
            address.set_port(port);
        }
    }
    Ok(())
}

/// `address` as the others are told.
pub(crate) fn advertised(config: &ServerConfig, address: SocketAddr) -> anyhow::Result<String> {
    match &config.advertise_host {
        Some(host) if host.contains(':') => Ok(format!("[{host}]:{}", address.port())),
        Some(host) => Ok(format!("{host}:{}", address.port())),
        None if address.ip().is_unspecified() => {
            anyhow::bail!(
                "the server listens on every address of this machine: say by which one the others reach it (advertise_host)"
            )
        }
        None => Ok(address.to_string()),
    }
}

/// The others find a server by the addresses in the cluster's list of members, which stay.
pub(crate) fn check_unchanged(before: &Member, now: &Member) -> anyhow::Result<()> {
    anyhow::ensure!(
        before == now,
        "the cluster knows this server as {} (link) and {} (API), and it would now be {} and {}: start it with the same addresses, \
         or add a new server in its place",
        before.link_address,
        before.api_address,
        now.link_address,
        now.api_address
    );
    Ok(())
}

/// The file that holds the first token for a role.
pub(crate) fn token_file(role: JoinRole) -> &'static str {
    match role {
        JoinRole::Server => "server.token",
        JoinRole::Worker => "worker.token",
    }
}

/// Makes the cluster, or has this server added to it; does nothing when that is done already.
pub(crate) async fn take(
    core: &Core,
    pool: &Pool,
    directory: &DataDir,
    mut membership: Membership,
) -> anyhow::Result<()> {
    if membership.admitted {
        return Ok(());
    }
    if membership.servers.is_empty() {
        core.store.initialize().await.context("failed to make the cluster")?;
        for role in [JoinRole::Server, JoinRole::Worker] {
            let token = tokens::create(&core.store, core.keys.authority.certificate(), role, None, None).await;
            directory
                .write(token_file(role), &format!("{}\n", token.context("failed to make the first join tokens")?))?;
        }
    } else {
        ask_to_be_added(pool, &membership).await?;
    }
    membership.admitted = true;
    directory.save_membership(&membership)
}

/// Asks the servers that it joined through, one after the other, until one has added it.
async fn ask_to_be_added(pool: &Pool, membership: &Membership) -> anyhow::Result<()> {
    let end = Instant::now() + limits::ADMIT;
    loop {
        let mut reasons = Vec::new();
        for address in &membership.servers {
            match ask(pool, address, &membership.member).await {
                Ok(()) => return Ok(()),
                Err(error) => reasons.push(format!("{address}: {error:#}")),
            }
        }
        let reasons = reasons.join("; ");
        anyhow::ensure!(Instant::now() < end, "failed to have this server added to the cluster: {reasons}");
        tracing::info!(reasons, "this server is not added to the cluster yet");
        tokio::time::sleep(limits::RETRY).await;
    }
}

async fn ask(pool: &Pool, address: &str, member: &Member) -> anyhow::Result<()> {
    let connection = pool.get(address).await?;
    let request = Request::post(internal::MEMBERS).body(shoal_client::bytes_body(serde_json::to_vec(member)?))?;
    let answer = async {
        let response = shoal_link::http::request(&connection, request).await?;
        let status = response.status();
        let body =
            response.into_body().collect().await.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        anyhow::ensure!(status == StatusCode::OK, "{}", String::from_utf8_lossy(&body.to_bytes()));
        Ok(())
    };
    tokio::time::timeout(limits::ADMIT, answer).await.context("no answer in time")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_told_an_address_that_they_can_reach() {
        let mut config = ServerConfig::new("server-1", "/d");
        let address: SocketAddr = "0.0.0.0:6443".parse().expect("an address");
        assert!(advertised(&config, address).is_err());
        config.advertise_host = Some("10.0.0.1".to_string());
        assert_eq!(advertised(&config, address).expect("an address"), "10.0.0.1:6443");
        config.advertise_host = Some("fd00::1".to_string());
        assert_eq!(advertised(&config, address).expect("an address"), "[fd00::1]:6443");
    }
}
