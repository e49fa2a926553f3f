//! A server whose store is damaged or gone begins anew from the others, when it is asked to: under a new member id, since the former
//! one has given votes and acknowledged entries that this server no longer knows of.

use std::net::SocketAddr;

use anyhow::Context as _;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use shoal_link::{Endpoint, IdentitySource, Pool, SERVERS};

use crate::config::ServerConfig;
use crate::data_dir::{DataDir, Membership, SERVER};
use crate::founding::{self, ServerGrant};
use crate::{internal, limits};

/// Gets a new member id and the cluster's keys from the others, then puts what the store has on disk aside.
pub(crate) async fn begin_anew(
    config: &ServerConfig,
    directory: &DataDir,
    before: Membership,
) -> anyhow::Result<Membership> {
    let source = IdentitySource::new(directory.identity(SERVER)?);
    let own_address = SocketAddr::new(config.link_address.ip(), 0);
    let endpoint = Endpoint::bind(own_address, &source).context("failed to open a socket")?;
    let pool = Pool::new(endpoint.clone()).only(SERVERS);
    let begun = ask_any(&pool, directory, before).await;
    endpoint.close().await;
    begun
}

async fn ask_any(pool: &Pool, directory: &DataDir, before: Membership) -> anyhow::Result<Membership> {
    anyhow::ensure!(
        !before.servers.is_empty(),
        "this server knows of no other one to be repaired from: restore a backup instead (`shoal restore`)"
    );
    let mut reasons = Vec::new();
    let mut given = None;
    for address in &before.servers {
        match tokio::time::timeout(limits::ASK_FOR_ID, ask(pool, address)).await {
            Ok(Ok(grant)) => given = Some(grant),
            Ok(Err(error)) => reasons.push(format!("{address}: {error:#}")),
            Err(_) => reasons.push(format!("{address}: no answer in time")),
        }
        if given.is_some() {
            break;
        }
    }
    let given = given.with_context(|| format!("no other server could be asked for a place: {}", reasons.join("; ")))?;
    let keys = founding::cluster_keys(&directory.identity(SERVER)?.ca_pem(), &given)?;
    put_aside(directory)?;
    directory.save_cluster_keys(&keys)?;
    let member = shoal_store::Member { id: given.member_id, ..before.member };
    tracing::warn!(server = member.name, member = member.id, "this server begins anew from the others");
    let membership = Membership { member, admitted: false, ..before };
    directory.save_membership(&membership)?;
    Ok(membership)
}

fn put_aside(directory: &DataDir) -> anyhow::Result<()> {
    let store = directory.store();
    let aside = store.with_extension("damaged");
    if aside.exists() {
        std::fs::remove_dir_all(&aside).with_context(|| format!("failed to remove {}", aside.display()))?;
    }
    if store.exists() {
        std::fs::rename(&store, &aside).with_context(|| format!("failed to put {} aside", store.display()))?;
        tracing::warn!(folder = %aside.display(), "what the store had was put aside");
    }
    Ok(())
}

async fn ask(pool: &Pool, address: &str) -> anyhow::Result<ServerGrant> {
    let connection = pool.get(address).await?;
    let request = Request::post(internal::NEW_ID).body(shoal_client::empty_body())?;
    let response = shoal_link::http::request(&connection, request).await?;
    let status = response.status();
    let body =
        response.into_body().collect().await.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    let body = body.to_bytes();
    anyhow::ensure!(status == StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    Ok(serde_json::from_slice(&body)?)
}
