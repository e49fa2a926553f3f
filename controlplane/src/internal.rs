//! Our own small API beside Kubernetes': members, tokens, certificates, blobs between servers, the way to a worker.
//!
//! JSON in, JSON out; an error is `{"error": "…"}` with a fitting status. Who may do what stands at each route: the admin
//! (`system:masters`), a server of the cluster, or a member (a server or a worker), by certificate only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_apiserver::Peer;
use shoal_link::http::Body;
use shoal_link::renew::{RenewReply, RenewRequest};
use shoal_link::token::JoinRole;
use shoal_link::{NODES, PeerIdentity, SERVERS};
use shoal_store::Member;

use crate::server::Core;
use crate::{admission, limits, tokens, workers};

/// What all our paths begin with.
pub(crate) const PREFIX: &str = "/shoal/v1/";

/// Where new servers are announced, and members listed.
pub(crate) const MEMBERS: &str = "/shoal/v1/members";

/// The path of one server's copy of a blob.
pub(crate) fn blob_path(digest: &str) -> String {
    format!("/shoal/v1/blobs/{digest}")
}

/// The path that says whether a worker is connected to the server that is asked.
pub(crate) fn node_path(node: &str) -> String {
    format!("/shoal/v1/nodes/{node}")
}

/// What to put before a path of a worker's agent.
pub(crate) fn node_proxy_path(node: &str) -> String {
    format!("/shoal/v1/nodes/{node}/proxy")
}

/// Who asks, as TLS or the link has verified; nameless without a certificate.
pub(crate) struct Caller {
    pub name: String,
    pub groups: Vec<String>,
}

impl Caller {
    pub(crate) fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Certificate { common_name, organizations } => {
                Self { name: common_name.clone(), groups: organizations.clone() }
            }
            Peer::Internal(_) | Peer::Token | Peer::Anonymous => Self { name: String::new(), groups: Vec::new() },
        }
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.is_in("system:masters")
    }

    fn is_server(&self) -> bool {
        self.is_in(SERVERS)
    }

    fn is_member(&self) -> bool {
        self.is_server() || self.is_in(NODES)
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// A request was not done.
struct Failure {
    status: StatusCode,
    message: String,
}

fn failure(status: StatusCode, message: impl std::fmt::Display) -> Failure {
    Failure { status, message: message.to_string() }
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    failure(StatusCode::SERVICE_UNAVAILABLE, error)
}

fn require(is_allowed: bool) -> Result<(), Failure> {
    if is_allowed { Ok(()) } else { Err(failure(StatusCode::FORBIDDEN, "this certificate does not allow it")) }
}

/// Answers one request under [`PREFIX`].
pub(crate) async fn answer(core: Arc<Core>, request: Request<Body>, caller: Caller) -> Response<Body> {
    match route(&core, request, &caller).await {
        Ok(response) => response,
        Err(failure) => {
            let mut response = reply(&json!({ "error": failure.message }));
            *response.status_mut() = failure.status;
            response
        }
    }
}

async fn route(core: &Core, request: Request<Body>, caller: &Caller) -> Result<Response<Body>, Failure> {
    let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_string();
    let parts: Vec<&str> = path.split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["members"]) => {
            require(caller.is_admin() || caller.is_member())?;
            Ok(reply(&members(core)))
        }
        (&Method::POST, ["members"]) => add_member(core, caller, read(request).await?).await,
        (&Method::GET, ["tokens"]) => {
            require(caller.is_admin())?;
            core.store.read_barrier().await.map_err(unavailable)?;
            Ok(reply(&tokens::list(&core.store.view())))
        }
        (&Method::POST, ["tokens"]) => {
            require(caller.is_admin())?;
            create_token(core, &read(request).await?).await
        }
        (&Method::DELETE, ["tokens", id]) => {
            require(caller.is_admin())?;
            match tokens::remove(&core.store, id).await {
                Ok(true) => Ok(reply(&json!({}))),
                Ok(false) => Err(failure(StatusCode::NOT_FOUND, format_args!("there is no token {id:?}"))),
                Err(error) => Err(unavailable(error)),
            }
        }
        (&Method::POST, ["certificate"]) => {
            require(caller.is_member())?;
            let wish: RenewRequest = read(request).await?;
            let identity = PeerIdentity { common_name: caller.name.clone(), organizations: caller.groups.clone() };
            let certificate = admission::renew(core, identity, &wish.request)
                .map_err(|error| failure(StatusCode::BAD_REQUEST, error))?;
            Ok(reply(&RenewReply { certificate }))
        }
        (&Method::HEAD, ["nodes", node]) => {
            require(caller.is_server())?;
            core.nodes.workers.get(node).map(|_| reply(&Value::Null)).ok_or_else(|| not_connected(node))
        }
        (_, ["nodes", node, "proxy", ..]) => {
            require(caller.is_server())?;
            ask_worker(core, node, request).await
        }
        (_, ["blobs", _]) => {
            require(caller.is_server())?;
            Ok(core.registry.handle_peer(request).await)
        }
        _ => Err(failure(StatusCode::NOT_FOUND, "there is nothing here")),
    }
}

/// A server of the cluster, as lists show it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedMember {
    id: u64,
    name: String,
    link_address: String,
    api_address: String,
    leader: bool,
}

fn members(core: &Core) -> Vec<ListedMember> {
    let leader = core.store.leadership().borrow().leader.as_ref().map(|leader| leader.id);
    let listed = |member: Member| ListedMember {
        leader: leader == Some(member.id),
        id: member.id,
        name: member.name,
        link_address: member.link_address,
        api_address: member.api_address,
    };
    core.store.members().into_iter().map(listed).collect()
}

/// A new server says that it is ready to be added: itself and nobody else.
async fn add_member(core: &Core, caller: &Caller, member: Member) -> Result<Response<Body>, Failure> {
    require(caller.is_server() && caller.name == crate::founding::server_identity(&member.name).common_name)?;
    tracing::info!(server = member.name, member = member.id, "a server asks to be added");
    core.store.add_member(member).await.map_err(unavailable)?;
    Ok(reply(&members(core)))
}

/// What a token is to be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewToken {
    role: JoinRole,
    /// How long it is valid; 0 for ever.
    ttl_seconds: Option<u64>,
}

async fn create_token(core: &Core, wish: &NewToken) -> Result<Response<Body>, Failure> {
    let life = match wish.ttl_seconds {
        None => Some(limits::TOKEN_LIFE),
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds)),
    };
    let token =
        tokens::create(&core.store, core.keys.authority.certificate(), wish.role, life).await.map_err(unavailable)?;
    tracing::info!(token = token.id, role = ?token.role, "a join token was made");
    let servers: Vec<String> = core.store.members().into_iter().map(|member| member.link_address).collect();
    Ok(reply(&json!({ "token": token.to_string(), "servers": servers })))
}

async fn ask_worker(core: &Core, node: &str, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let connection = core.nodes.workers.get(node).ok_or_else(|| not_connected(node))?;
    let full = request.uri().path_and_query().map(|path| path.as_str().to_string()).unwrap_or_default();
    let path = full.strip_prefix(&node_proxy_path(node)).filter(|path| path.starts_with('/')).unwrap_or("/");
    let request = workers::with_path(request, path).map_err(|error| failure(StatusCode::BAD_REQUEST, error))?;
    workers::send_here(&connection, request).await.map_err(|error| failure(StatusCode::BAD_GATEWAY, error))
}

fn not_connected(node: &str) -> Failure {
    failure(StatusCode::NOT_FOUND, format_args!("worker {node:?} is not connected to this server"))
}

fn reply(value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("our own documents are always JSON");
    let mut response = Response::new(shoal_client::bytes_body(text));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

async fn read<T: serde::de::DeserializeOwned>(request: Request<Body>) -> Result<T, Failure> {
    let bad = |error: &dyn std::fmt::Display| failure(StatusCode::BAD_REQUEST, error);
    let body: Body = Limited::new(request.into_body(), limits::BODY).boxed();
    let body: Bytes = body.collect().await.map_err(|error| bad(&error))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(&error))
}
