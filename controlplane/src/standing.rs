//! Whether this server still belongs to its cluster, and where the others are.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use shoal_store::Member;

use crate::data_dir::DataDir;
use crate::internal;
use crate::server::Core;

/// How often a server looks.
const EVERY: Duration = Duration::from_secs(3);

/// How long the others may take to say who belongs to the cluster.
const ASK: Duration = Duration::from_secs(2);

/// Ends when this server was removed from its cluster; answers what it says then. Cancel safe.
pub(crate) async fn removed(core: &Core) -> String {
    let own = core.store.own();
    loop {
        tokio::time::sleep(EVERY).await;
        // The news of the removal need not have reached this server, whose last leader still seems to lead: so the others are asked.
        let leads = core.store.leadership().borrow().is_self;
        if !leads && is_unknown_to_others(core).await {
            return format!(
                "server {:?} (member {}) was removed from the cluster; to have it back, remove its data directory and join with a new token",
                own.name, own.id
            );
        }
    }
}

/// Whether any other server that knows the leader says that this one is no member.
async fn is_unknown_to_others(core: &Core) -> bool {
    for other in core.nodes.servers.list() {
        let asked = tokio::time::timeout(ASK, members(core, &other)).await;
        let Ok(Some(members)) = asked else { continue };
        let leads = members.iter().any(|member| member["leader"] == true);
        if leads && !members.iter().any(|member| member["id"] == core.store.own().id) {
            return true;
        }
    }
    false
}

async fn members(core: &Core, of: &Member) -> Option<Vec<Value>> {
    let request = Request::get(internal::MEMBERS).body(shoal_client::empty_body()).ok()?;
    let response = core.nodes.servers.request(of, request).await.ok()?;
    if response.status() != StatusCode::OK {
        return None;
    }
    let body = response.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

/// Keeps the other servers' addresses in `member.json`, for ever: a server that has lost its store asks them.
pub(crate) async fn remember_others(core: std::sync::Arc<Core>, directory: DataDir) {
    loop {
        tokio::time::sleep(EVERY).await;
        let servers: Vec<String> = core.nodes.servers.list().into_iter().map(|member| member.link_address).collect();
        let saved = directory.membership().and_then(|membership| match membership {
            Some(membership) if membership.admitted && !servers.is_empty() && membership.servers != servers => {
                directory.save_membership(&crate::data_dir::Membership { servers, ..membership })
            }
            _ => Ok(()),
        });
        if let Err(error) = saved {
            tracing::warn!(error = format!("{error:#}"), "the other servers' addresses could not be noted");
        }
    }
}
