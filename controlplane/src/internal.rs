//! Our own small API beside Kubernetes': members, tokens, certificates, blobs between servers, the way to a worker.
//!
//! JSON in, JSON out; an error is `{"error": "…"}` with a fitting status. Who may do what stands at each route: the admin
//! (`system:masters`), a server of the cluster, or a member (a server or a worker), by certificate only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_apiserver::Peer;
use shoal_link::http::Body;
use shoal_link::renew::{RenewReply, RenewRequest};
use shoal_link::token::JoinRole;
use shoal_link::{NODES, PeerIdentity, SERVERS};

use crate::server::Core;
use crate::{admission, backups, keys, limits, members, tokens, workers};

/// What all our paths begin with.
pub(crate) const PREFIX: &str = "/shoal/v1/";

/// Where new servers are announced, and members listed.
pub(crate) const MEMBERS: &str = "/shoal/v1/members";

/// Where a server that begins anew gets a new id.
pub(crate) const NEW_ID: &str = "/shoal/v1/members/own-id";

/// Where a server says what it is.
pub(crate) const SERVER: &str = "/shoal/v1/server";

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

    pub(crate) fn is_server(&self) -> bool {
        self.is_in(SERVERS)
    }

    pub(crate) fn is_member(&self) -> bool {
        self.is_server() || self.is_in(NODES)
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// A request was not done.
pub(crate) struct Failure {
    status: StatusCode,
    message: String,
}

pub(crate) fn failure(status: StatusCode, message: impl std::fmt::Display) -> Failure {
    Failure { status, message: message.to_string() }
}

pub(crate) fn unavailable(error: impl std::fmt::Display) -> Failure {
    failure(StatusCode::SERVICE_UNAVAILABLE, error)
}

pub(crate) fn require(is_allowed: bool) -> Result<(), Failure> {
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

async fn route(core: &Arc<Core>, request: Request<Body>, caller: &Caller) -> Result<Response<Body>, Failure> {
    let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_string();
    let parts: Vec<&str> = path.split('/').collect();
    match (request.method(), parts.as_slice()) {
        (_, ["members", rest @ ..]) => members::answer(core, rest, request, caller).await,
        (&Method::GET, ["server"]) => {
            require(caller.is_server())?;
            Ok(reply(&members::own_state(core)))
        }
        (&Method::POST, ["backup"]) => {
            require(caller.is_admin())?;
            back_up(core, read(request).await?).await
        }
        (&Method::GET, ["keys"]) => {
            require(caller.is_admin())?;
            Ok(reply(&json!({ "active": core.keys.ring.active(), "keys": core.keys.ring.ids() })))
        }
        (&Method::POST, ["keys", "rotate"]) => {
            require(caller.is_admin())?;
            rotate_keys(core).await
        }
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

/// What a backup is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBackup {
    /// With it the CA and the encryption keys are in it too.
    passphrase: Option<String>,
}

async fn back_up(core: &Arc<Core>, wish: NewBackup) -> Result<Response<Body>, Failure> {
    if wish.passphrase.as_deref().is_some_and(str::is_empty) {
        return Err(failure(
            StatusCode::BAD_REQUEST,
            "passphrase: an empty one protects nothing; leave it out or choose one",
        ));
    }
    let stream = backups::create(core, wish.passphrase).await.map_err(unavailable)?;
    let frames = futures_util::stream::iter(stream).map(|part| match part {
        Ok(part) => Ok(Frame::data(Bytes::from(part))),
        Err(error) => Err(Box::new(error) as shoal_link::http::BoxError),
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

async fn rotate_keys(core: &Arc<Core>) -> Result<Response<Body>, Failure> {
    let key = keys::rotate(core).await.map_err(|error| unavailable(format_args!("{error:#}")))?;
    tracing::info!(key, "a new encryption key was made");
    keys::wait_until_sealed_with(core, key, limits::SEAL_ANEW).await;
    let servers = members::wait_for_all(core, limits::SEAL_ANEW, |state| state.sealed_with == Some(key)).await;
    Ok(reply(&json!({ "active": key, "servers": servers })))
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
    let token = tokens::create(&core.store, core.keys.authority.certificate(), wish.role, life, None)
        .await
        .map_err(unavailable)?;
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

pub(crate) fn reply(value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("our own documents are always JSON");
    let mut response = Response::new(shoal_client::bytes_body(text));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

pub(crate) async fn read<T: serde::de::DeserializeOwned>(request: Request<Body>) -> Result<T, Failure> {
    let bad = |error: &dyn std::fmt::Display| failure(StatusCode::BAD_REQUEST, error);
    let body: Body = Limited::new(request.into_body(), limits::BODY).boxed();
    let body: Bytes = body.collect().await.map_err(|error| bad(&error))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(&error))
}
