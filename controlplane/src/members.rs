//! Our API of the servers: who they are and how they do, adding, removing and replacing them, and who leads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shoal_link::http::Body;
use shoal_link::token::JoinRole;
use shoal_store::{FEATURE_LEVEL, Member, MemberStatus, MembershipError};

use crate::internal::{Caller, Failure, SERVER, failure, read, reply, require, unavailable};
use crate::server::Core;
use crate::{admission, limits, tokens};

/// Answers a request for `/shoal/v1/members` and what is below it.
pub(crate) async fn answer(
    core: &Arc<Core>,
    rest: &[&str],
    request: Request<Body>,
    caller: &Caller,
) -> Result<Response<Body>, Failure> {
    match (request.method(), rest) {
        (&Method::GET, []) => {
            require(caller.is_admin() || caller.is_member())?;
            Ok(reply(&list(core).await))
        }
        (&Method::POST, []) => add(core, caller, read(request).await?).await,
        (&Method::POST, ["own-id"]) => new_id(core, caller).await,
        (&Method::POST, ["leader"]) => {
            require(caller.is_admin())?;
            transfer(core, read(request).await?).await
        }
        (&Method::POST, [name, "replacement"]) => {
            require(caller.is_admin())?;
            replacement(core, name).await
        }
        (&Method::DELETE, [name]) => {
            require(caller.is_admin())?;
            let id = find(&statuses(core).await?, name)?.member.id;
            core.store.remove_member(id).await.map_err(refused)?;
            tracing::info!(server = name, member = id, "a server was removed");
            Ok(reply(&list(core).await))
        }
        _ => Err(failure(StatusCode::NOT_FOUND, "there is nothing here")),
    }
}

/// A server of the cluster, as lists show it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: u64,
    name: String,
    link_address: String,
    api_address: String,
    leader: bool,
    #[serde(flatten)]
    health: Option<Health>,
}

/// What only the leader knows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    voter: bool,
    reachable: bool,
    /// How many entries of the log it has yet to get.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
}

/// The servers as the leader sees them; when there is none, as this one knows them.
async fn list(core: &Core) -> Vec<Listed> {
    let listed = |member: Member, leader: bool, health: Option<Health>| Listed {
        leader,
        health,
        id: member.id,
        name: member.name,
        link_address: member.link_address,
        api_address: member.api_address,
    };
    let known = core.store.leadership().borrow().leader.as_ref().map(|leader| leader.id);
    let asked = async {
        match known {
            Some(_) => tokio::time::timeout(limits::LIST_MEMBERS, core.store.member_statuses()).await.ok()?.ok(),
            None => None,
        }
    };
    match asked.await {
        Some(statuses) => statuses
            .into_iter()
            .map(|status| {
                let health = Health { voter: status.is_voter, reachable: status.is_reachable, behind: status.behind };
                listed(status.member, status.is_leader, Some(health))
            })
            .collect(),
        None => {
            let members = core.store.members().into_iter();
            members.map(|member| listed(member.clone(), known == Some(member.id), None)).collect()
        }
    }
}

async fn statuses(core: &Core) -> Result<Vec<MemberStatus>, Failure> {
    core.store.member_statuses().await.map_err(unavailable)
}

/// The server with this name or id.
fn find<'a>(statuses: &'a [MemberStatus], name: &str) -> Result<&'a MemberStatus, Failure> {
    let fits = |status: &&MemberStatus| status.member.name == name || status.member.id.to_string() == name;
    statuses.iter().find(fits).ok_or_else(|| {
        let names: Vec<&str> = statuses.iter().map(|status| status.member.name.as_str()).collect();
        failure(StatusCode::NOT_FOUND, format_args!("there is no server {name:?}: there are {}", names.join(", ")))
    })
}

fn refused(error: MembershipError) -> Failure {
    match error {
        MembershipError::Refused(_) => failure(StatusCode::CONFLICT, error),
        MembershipError::Unavailable | MembershipError::NotCaughtUp(_) => unavailable(error),
    }
}

/// A new server says that it is ready to be added: itself and nobody else.
async fn add(core: &Core, caller: &Caller, member: Member) -> Result<Response<Body>, Failure> {
    require(is_itself(caller, &member.name))?;
    tracing::info!(server = member.name, member = member.id, "a server asks to be added");
    core.store.add_member(member).await.map_err(refused)?;
    Ok(reply(&list(core).await))
}

fn is_itself(caller: &Caller, name: &str) -> bool {
    caller.is_server() && caller.name == crate::founding::server_identity(name).common_name
}

/// A member that has lost its store begins anew under another id.
async fn new_id(core: &Core, caller: &Caller) -> Result<Response<Body>, Failure> {
    let members = core.store.members();
    let member = members.iter().find(|member| is_itself(caller, &member.name));
    let member = member.ok_or_else(|| failure(StatusCode::FORBIDDEN, "this server is no member of the cluster"))?;
    tracing::warn!(server = member.name, former = member.id, "a server begins anew");
    let grant = admission::grant(core, members.clone()).await.map_err(unavailable)?;
    Ok(reply(&grant))
}

/// Who is to lead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLeader {
    /// A server's name or id; any other than the one that leads when it is left out.
    to: Option<String>,
}

async fn transfer(core: &Core, wish: NewLeader) -> Result<Response<Body>, Failure> {
    let to = match &wish.to {
        Some(name) => Some(find(&statuses(core).await?, name)?.member.id),
        None => None,
    };
    core.store.transfer_leadership(to).await.map_err(refused)?;
    Ok(reply(&list(core).await))
}

/// A token for a server that comes in place of `name`, which must not run.
async fn replacement(core: &Core, name: &str) -> Result<Response<Body>, Failure> {
    let statuses = statuses(core).await?;
    let replaced = find(&statuses, name)?;
    if replaced.is_reachable {
        return Err(failure(
            StatusCode::CONFLICT,
            format_args!("server {:?} runs: stop it before another one takes its place", replaced.member.name),
        ));
    }
    let name = replaced.member.name.clone();
    let ca = core.keys.authority.certificate();
    let token = tokens::create(&core.store, ca, JoinRole::Server, Some(limits::TOKEN_LIFE), Some(name.clone())).await;
    let token = token.map_err(unavailable)?;
    tracing::info!(token = token.id, replaces = name, "a join token was made");
    let servers = statuses.iter().filter(|status| status.is_reachable);
    let servers: Vec<&str> = servers.map(|status| status.member.link_address.as_str()).collect();
    Ok(reply(&json!({ "name": name, "token": token.to_string(), "servers": servers })))
}

/// What a server says of itself to the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnState {
    pub name: String,
    pub version: String,
    /// The newest feature level that it knows.
    pub feature_level: u32,
    /// The key with which all of its files are sealed, once there is only one.
    pub sealed_with: Option<u32>,
}

pub(crate) fn own_state(core: &Core) -> OwnState {
    let is_sealed = core.store.is_sealed_with_active_key().unwrap_or(false);
    OwnState {
        name: core.store.own().name.clone(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        feature_level: FEATURE_LEVEL,
        sealed_with: is_sealed.then(|| core.keys.ring.active()),
    }
}

/// What a server says of itself.
async fn ask(core: &Core, member: &Member) -> Option<OwnState> {
    if member.id == core.store.own().id {
        return Some(own_state(core));
    }
    let request = Request::get(SERVER).body(shoal_client::empty_body()).ok()?;
    let asked = async {
        let response = core.nodes.servers.request(member, request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    tokio::time::timeout(limits::FIND_NODE, asked).await.ok()?
}

/// A server, and whether it has come to what was waited for.
#[derive(Debug, Serialize)]
pub(crate) struct Reached {
    name: String,
    done: bool,
}

/// Waits until all servers say something, for a bounded time.
pub(crate) async fn wait_for_all(core: &Core, patience: Duration, is_done: impl Fn(&OwnState) -> bool) -> Vec<Reached> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        let members = core.store.members();
        let states = join_all(members.iter().map(|member| ask(core, member))).await;
        let reached: Vec<Reached> = members
            .iter()
            .zip(states)
            .map(|(member, state)| Reached { name: member.name.clone(), done: state.as_ref().is_some_and(&is_done) })
            .collect();
        if reached.iter().all(|reached| reached.done) || tokio::time::Instant::now() > end {
            return reached;
        }
        tokio::time::sleep(limits::RETRY).await;
    }
}

/// Raises the cluster's feature level to what all servers know, for ever; a server that cannot be asked may know less.
pub(crate) async fn raise_feature_level(core: Arc<Core>) {
    loop {
        if core.store.feature_level() < FEATURE_LEVEL {
            let members = core.store.members();
            let states = join_all(members.iter().map(|member| ask(&core, member))).await;
            let common = states.iter().map(|state| state.as_ref().map_or(0, |state| state.feature_level)).min();
            if let Some(level) = common.filter(|level| *level > core.store.feature_level()) {
                match core.store.raise_feature_level(level.min(FEATURE_LEVEL)).await {
                    Ok(()) => {
                        tracing::info!(level, "all servers know a newer feature level, which is written from now on")
                    }
                    Err(error) => tracing::debug!(%error, "the feature level could not be raised yet"),
                }
            }
        }
        tokio::time::sleep(limits::LOOK_AT_FEATURES).await;
    }
}
