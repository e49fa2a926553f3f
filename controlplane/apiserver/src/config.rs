//! What the API server is given: the store, its keys, the way to a node, and who is calling.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use shoal_store::Store;

use crate::{Body, ServiceAccountKey};

/// Everything an [`ApiServer`](crate::ApiServer) needs.
pub struct Config {
    /// The replicated store.
    pub store: Store,
    /// This server's name, for logs.
    pub server_name: String,
    /// Shoal's version, such as `0.1.0`; `/version` answers `v1.35.0+shoal.0.1.0`.
    pub version: String,
    /// The cluster's key for service-account tokens: the same on every server.
    pub service_account_key: Arc<ServiceAccountKey>,
    /// How long an event stays after its last write.
    pub event_ttl: Duration,
    /// The way to the HTTP API of a node's agent.
    pub node_requests: Arc<dyn NodeRequests>,
}

/// Sends a request to the kubelet-like API of a node's agent; the control plane implements it over its links.
pub trait NodeRequests: Send + Sync + 'static {
    /// Sends `request` (its path and query count, not its authority) to the agent of `node`.
    fn send(&self, node: &str, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, NodeUnreachable>>;
}

/// The node's agent could not be asked: it is not connected to any server, or the connection broke.
#[derive(Debug, thiserror::Error)]
#[error("node {node:?} cannot be reached: {reason}")]
pub struct NodeUnreachable {
    /// The node's name.
    pub node: String,
    /// Why, in a few words.
    pub reason: String,
}

/// Who a connection says that it is, before the request's own headers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client certificate that TLS or the link has verified against the cluster's CA.
    Certificate {
        /// The certificate's common name: the user.
        common_name: String,
        /// The certificate's organizations: the groups.
        organizations: Vec<String>,
    },
    /// No certificate: look at the `Authorization` header. The same as `Anonymous` when there is none.
    Token,
    /// A loop in the server's own process, such as `system:shoal:controllers`; a member of `system:masters`.
    Internal(String),
    /// No certificate, and a bearer token is not expected; one that comes is checked all the same.
    Anonymous,
}
