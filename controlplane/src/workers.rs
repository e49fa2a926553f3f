//! The workers' connections: which worker is connected here, and how its agent is asked from any server.
//!
//! A worker dials one server, whichever it likes. A request for its agent goes back over that connection; on the other
//! servers it first goes to the one that has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use shoal_apiserver::{NodeRequests, NodeUnreachable};
use shoal_link::Connection;
use shoal_link::http::Body;
use shoal_store::Member;

use crate::peers::OtherServers;
use crate::{internal, limits};

/// The workers that are connected to this server, by their nodes' names.
#[derive(Default)]
pub(crate) struct Workers {
    connections: Mutex<HashMap<String, Connection>>,
}

impl Workers {
    /// Notes a worker's connection; a former one of the same worker is closed, since the worker has left it.
    pub(crate) fn connected(&self, node: &str, connection: &Connection) {
        let former = self.lock().insert(node.to_string(), connection.clone());
        if let Some(former) = former {
            former.close();
        }
        tracing::info!(node, "a worker is connected");
    }

    /// Forgets a connection that is gone, unless the worker has a new one.
    pub(crate) fn disconnected(&self, node: &str, connection: &Connection) {
        let mut connections = self.lock();
        if connections.get(node).is_some_and(|current| current.stable_id() == connection.stable_id()) {
            connections.remove(node);
            tracing::info!(node, "a worker is disconnected");
        }
    }

    /// The connection of a worker, if it is connected here.
    pub(crate) fn get(&self, node: &str) -> Option<Connection> {
        self.lock().get(node).filter(|connection| !connection.is_closed()).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way from any server to any worker's agent.
#[derive(Clone)]
pub(crate) struct NodeRouter {
    pub workers: Arc<Workers>,
    pub servers: OtherServers,
}

impl NodeRequests for NodeRouter {
    fn send(&self, node: &str, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, NodeUnreachable>> {
        let (router, node) = (self.clone(), node.to_string());
        Box::pin(async move { router.route(&node, request).await.map_err(|reason| NodeUnreachable { node, reason }) })
    }
}

impl NodeRouter {
    async fn route(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, String> {
        if let Some(connection) = self.workers.get(node) {
            return send_here(&connection, request).await;
        }
        let Some(server) = self.find(node).await else { return Err("its agent is connected to no server".to_string()) };
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let path = format!("{}{path}", internal::node_proxy_path(node));
        let request = with_path(request, &path)?;
        self.servers.request(&server, request).await
    }

    /// Whether a worker is connected to any server that can be reached.
    pub(crate) async fn is_connected(&self, node: &str) -> bool {
        self.workers.get(node).is_some() || self.find(node).await.is_some()
    }

    /// The other server to which a worker is connected.
    async fn find(&self, node: &str) -> Option<Member> {
        let mut asked: FuturesUnordered<_> =
            self.servers.list().into_iter().map(|server| self.has(server, node)).collect();
        while let Some(answer) = asked.next().await {
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    async fn has(&self, server: Member, node: &str) -> Option<Member> {
        let mut request = Request::new(shoal_client::empty_body());
        *request.method_mut() = Method::HEAD;
        *request.uri_mut() = internal::node_path(node).parse().ok()?;
        let answer =
            tokio::time::timeout(limits::FIND_NODE, self.servers.request(&server, request)).await.ok()?.ok()?;
        (answer.status() == StatusCode::OK).then_some(server)
    }
}

/// Sends a request to the agent at the other end of `connection`.
pub(crate) async fn send_here(connection: &Connection, request: Request<Body>) -> Result<Response<Body>, String> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_string();
    let request = with_path(request, &path)?;
    shoal_link::http::request(connection, request).await.map_err(|error| error.to_string())
}

/// The same request for another path, without an authority: the connection says who is asked.
pub(crate) fn with_path(mut request: Request<Body>, path: &str) -> Result<Request<Body>, String> {
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| error.to_string())?;
    *request.version_mut() = http::Version::HTTP_11;
    Ok(request)
}
