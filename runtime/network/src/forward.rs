//! Carrying one request to an endpoint, and to another one where the first did not take it.
//!
//! A request that nobody looked at (connection refused, function stopping, node unreachable) goes to the next endpoint
//! whatever its method. One that broke under way is repeated only if its method is idempotent (RFC 9110, section 9.2.2)
//! and its body was kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use shoal_link::http::RequestError;
use shoal_link::{Connection, Pool};
use thiserror::Error;

use crate::body::{POD_ADDRESS, REFUSED, full, strip_hop_by_hop, text_response, to_origin_form};
use crate::datagrams::NodeQueues;
use crate::dial::call_process;
use crate::limits::{ATTEMPTS, NODE_CONNECT, NODE_SUSPECT, REPLAYABLE_BODY_BYTES};
use crate::local::{LocalPods, LocalTarget, Refused};
use crate::streams::Functions;
use crate::table::{Endpoint, Protocol, ServiceName, ServicePort, Table};
use crate::{Body, BoxError};

/// Why a request reached nobody.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The Service has no such port.
    #[error("service {0} has no port {1}")]
    NoPort(ServiceName, u16),
    /// Nothing has this node port.
    #[error("no service has node port {0}")]
    NoNodePort(u16),
    /// The Service has no ready endpoint.
    #[error("service {0} has no ready endpoint")]
    NoEndpoint(ServiceName),
    /// No endpoint took the request.
    #[error("no endpoint took the request: {0}")]
    Refused(String),
    /// It broke under way.
    #[error("request broke: {0}")]
    Broken(#[source] BoxError),
    /// The request's own body broke.
    #[error("request body broke: {0}")]
    RequestBody(#[source] BoxError),
}

impl NetworkError {
    /// The answer that an HTTP client gets.
    pub fn response(&self) -> Response<Body> {
        let status = match self {
            NetworkError::RequestBody(_) => StatusCode::BAD_REQUEST,
            NetworkError::Broken(_) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        text_response(status, self.to_string())
    }
}

/// The network of one node. Everything in it is shared and may be called from any task.
pub struct Network {
    table: ArcSwap<Table>,
    local: LocalPods,
    pool: Pool,
    /// Whose turn it is to get a request.
    turn: AtomicUsize,
    /// Whose turn it is to get a connection or an asker's datagrams.
    connection_turn: AtomicUsize,
    suspects: Mutex<BTreeMap<String, Instant>>,
    gateway: ArcSwapOption<IpAddr>,
    pub(crate) functions: Functions,
    pub(crate) node_queues: NodeQueues,
}

/// How one attempt ended without an answer.
enum Failure {
    Untouched(Refused),
    Lost(String),
    Broken(BoxError),
}

impl Network {
    /// An empty network that reaches other nodes through `pool`.
    pub fn new(pool: Pool) -> Arc<Network> {
        Arc::new(Network {
            table: ArcSwap::default(),
            local: LocalPods::default(),
            pool,
            turn: AtomicUsize::new(0),
            connection_turn: AtomicUsize::new(0),
            suspects: Mutex::default(),
            gateway: ArcSwapOption::empty(),
            functions: Functions::default(),
            node_queues: NodeQueues::default(),
        })
    }

    /// Takes a new table; requests under way keep the one that they saw.
    pub fn set_table(&self, table: Table) {
        self.functions.retain(|address| table.is_endpoint(address));
        self.table.store(Arc::new(table));
    }

    /// The node's own address in the pods' network, from which what comes from outside seems to come.
    pub fn set_gateway(&self, address: IpAddr) {
        let before = self.gateway.swap(Some(Arc::new(address)));
        if before.as_deref() == Some(&address) {
            return;
        }
        if let Some(before) = before {
            self.local.remove(*before);
        }
        self.local.add(address);
    }

    /// The node's own address in the pods' network, once it has one.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway.load().as_deref().copied()
    }

    /// The table of this moment.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// What runs on this node.
    pub fn local(&self) -> &LocalPods {
        &self.local
    }

    /// Sends a request to one of a Service's ready endpoints.
    ///
    /// # Errors
    /// [`NetworkError`]; [`NetworkError::response`] is what the client should see.
    pub async fn call_service(
        &self,
        name: &ServiceName,
        port: u16,
        request: Request<Body>,
    ) -> Result<Response<Body>, NetworkError> {
        let table = self.table.load();
        let service_port =
            table.service_port(name, Protocol::Tcp, port).ok_or_else(|| NetworkError::NoPort(name.clone(), port))?;
        let candidates = self.candidates(service_port);
        drop(table);
        self.call_one_of(candidates, request).await.unwrap_or_else(|| Err(NetworkError::NoEndpoint(name.clone())))
    }

    /// Sends a request to one of the ready endpoints of the Service that has this node port.
    ///
    /// # Errors
    /// [`NetworkError`]; [`NetworkError::response`] is what the client should see.
    pub async fn call_node_port(&self, node_port: u16, request: Request<Body>) -> Result<Response<Body>, NetworkError> {
        let table = self.table.load();
        let found = table.service_of_node_port(Protocol::Tcp, node_port);
        let (name, service_port) = found.ok_or(NetworkError::NoNodePort(node_port))?;
        let (name, candidates) = (name.clone(), self.candidates(service_port));
        drop(table);
        self.call_one_of(candidates, request).await.unwrap_or_else(|| Err(NetworkError::NoEndpoint(name)))
    }

    /// Sends a request to one pod's address and port, wherever it runs.
    ///
    /// # Errors
    /// [`NetworkError`]; a pod address that no table knows is [`NetworkError::Refused`].
    pub async fn call_pod(&self, address: SocketAddr, request: Request<Body>) -> Result<Response<Body>, NetworkError> {
        let node = self.table.load().node_of(address.ip()).unwrap_or_default().to_owned();
        let endpoint = Endpoint { address, node, ready: true };
        self.call_one_of(vec![endpoint], request)
            .await
            .unwrap_or_else(|| Err(NetworkError::Refused(format!("nothing at {address}"))))
    }

    /// Sends a request to a pod of this node only, as other nodes ask for it.
    pub(crate) async fn call_local(
        &self,
        address: SocketAddr,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refused> {
        match self.local.target(address) {
            Some(LocalTarget::Function(function)) => function.call(request).await,
            Some(LocalTarget::Process(process)) => {
                let answer = call_process(&process, self.own_address(), address, request).await?;
                Ok(answer.unwrap_or_else(|error| NetworkError::Broken(error).response()))
            }
            None => Err(Refused::new(request, format!("nothing listens at {address}"))),
        }
    }

    fn candidates(&self, port: &ServicePort) -> Vec<Endpoint> {
        self.in_turn(port, &self.turn)
    }

    /// As for requests; they must not take each other's turns, or a request for each connection would always meet the same.
    pub(crate) fn connection_candidates(&self, port: &ServicePort) -> Vec<Endpoint> {
        self.in_turn(port, &self.connection_turn)
    }

    fn in_turn(&self, port: &ServicePort, turn: &AtomicUsize) -> Vec<Endpoint> {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let suspects = self.suspects();
        Table::candidates(port, turn, |endpoint| self.is_worse(endpoint, &suspects))
    }

    fn is_worse(&self, endpoint: &Endpoint, suspects: &[String]) -> bool {
        suspects.contains(&endpoint.node) || self.local.is_stopping(endpoint.address)
    }

    /// Tries the candidates in their order; `None` if there are none.
    async fn call_one_of(
        &self,
        candidates: Vec<Endpoint>,
        mut request: Request<Body>,
    ) -> Option<Result<Response<Body>, NetworkError>> {
        strip_hop_by_hop(request.headers_mut());
        let tries = candidates.len().min(ATTEMPTS);
        if tries == 0 {
            return None;
        }
        // One candidate has no second to go to: its body need not be kept.
        let mut request = match Replay::of(request, tries > 1).await {
            Ok(request) => request,
            Err(error) => return Some(Err(NetworkError::RequestBody(error))),
        };
        let mut last = NetworkError::Refused("no attempt was made".to_owned());
        for endpoint in candidates.into_iter().take(tries) {
            let Some(attempt) = request.next() else { break };
            match self.send(&endpoint, attempt).await {
                Ok(response) => return Some(Ok(response)),
                Err(Failure::Untouched(refused)) => {
                    request.give_back(*refused.request);
                    last = NetworkError::Refused(refused.reason);
                }
                Err(Failure::Lost(reason)) => last = NetworkError::Refused(reason),
                Err(Failure::Broken(error)) => {
                    last = NetworkError::Broken(error);
                    if !request.is_idempotent {
                        break;
                    }
                }
            }
        }
        Some(Err(last))
    }

    async fn send(&self, endpoint: &Endpoint, request: Request<Body>) -> Result<Response<Body>, Failure> {
        match self.local.target(endpoint.address) {
            Some(LocalTarget::Function(function)) => function.call(request).await.map_err(Failure::Untouched),
            Some(LocalTarget::Process(process)) => {
                match call_process(&process, self.own_address(), endpoint.address, request).await {
                    Ok(answer) => answer.map_err(Failure::Broken),
                    Err(refused) => Err(Failure::Untouched(refused)),
                }
            }
            None => self.send_to_node(endpoint, request).await,
        }
    }

    async fn send_to_node(&self, endpoint: &Endpoint, mut request: Request<Body>) -> Result<Response<Body>, Failure> {
        let refuse = |request, reason: String| Err(Failure::Untouched(Refused::new(request, reason)));
        if self.local.contains(endpoint.address.ip()) {
            return refuse(request, format!("nothing listens at {}", endpoint.address));
        }
        let connection = match self.node(endpoint).await {
            Ok(connection) => connection,
            Err(reason) => return refuse(request, reason),
        };
        to_origin_form(&mut request);
        let target = HeaderValue::from_str(&endpoint.address.to_string()).expect("an address is a header value");
        request.headers_mut().insert(POD_ADDRESS, target);
        match shoal_link::http::request(&connection, request).await {
            Ok(mut response) => {
                if let Some(reason) = response.headers_mut().remove(REFUSED) {
                    return Err(Failure::Lost(reason.to_str().unwrap_or("refused").to_owned()));
                }
                strip_hop_by_hop(response.headers_mut());
                Ok(response)
            }
            Err(error) => {
                self.suspect(&endpoint.node);
                Err(match error {
                    RequestError::Lost(lost) => Failure::Lost(lost.to_string()),
                    RequestError::Broken { .. } => Failure::Broken(error.into()),
                })
            }
        }
    }

    /// The connection to an endpoint's node.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn node(&self, endpoint: &Endpoint) -> Result<Connection, String> {
        let node = &endpoint.node;
        let Some(link) = self.table.load().link_of(node).map(str::to_owned) else {
            return Err(format!("node {node:?} of pod {} has no link address", endpoint.address));
        };
        let reason = match tokio::time::timeout(NODE_CONNECT, self.pool.get(&link)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => format!("node {node}: {error}"),
            Err(_) => format!("node {node}: no connection within {NODE_CONNECT:?}"),
        };
        self.suspect(node);
        Err(reason)
    }

    /// Where the node's own connections to processes come from.
    fn own_address(&self) -> SocketAddr {
        SocketAddr::new(self.gateway().unwrap_or(IpAddr::from([0, 0, 0, 0])), 0)
    }

    /// Remembers that a node just failed.
    pub(crate) fn suspect(&self, node: &str) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), Instant::now());
    }

    fn suspects(&self) -> Vec<String> {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.retain(|_, since| since.elapsed() < NODE_SUSPECT);
        suspects.keys().cloned().collect()
    }

    /// Whether a pod address is of this node or of the table.
    pub fn knows(&self, address: IpAddr) -> bool {
        self.local.contains(address) || self.table.load().is_pod(address)
    }
}

/// A request that can be sent more than once, as far as its body allows.
struct Replay {
    head: http::request::Parts,
    kept: Option<Bytes>,
    fresh: Option<Request<Body>>,
    is_idempotent: bool,
}

impl Replay {
    /// Keeps the body if it is small and its length is known; a streamed body can be sent once.
    async fn of(request: Request<Body>, may_repeat: bool) -> Result<Replay, BoxError> {
        let is_idempotent = request.method().is_idempotent();
        let is_small = request.body().size_hint().exact().is_some_and(|length| length <= REPLAYABLE_BODY_BYTES);
        let (head, body) = request.into_parts();
        if !may_repeat || !is_small {
            let fresh = Some(Request::from_parts(head.clone(), body));
            return Ok(Replay { head, kept: None, fresh, is_idempotent });
        }
        let kept = if body.is_end_stream() { Bytes::new() } else { body.collect().await?.to_bytes() };
        Ok(Replay { head, kept: Some(kept), fresh: None, is_idempotent })
    }

    fn next(&mut self) -> Option<Request<Body>> {
        self.fresh.take().or_else(|| Some(Request::from_parts(self.head.clone(), full(self.kept.clone()?))))
    }

    fn give_back(&mut self, request: Request<Body>) {
        if self.kept.is_none() {
            self.fresh = Some(request);
        }
    }
}
