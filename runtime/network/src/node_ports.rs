//! The listeners that lead from the node's address into the network: one for each node port.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Body;
use crate::forward::Network;
use crate::limits::{NODE_PORT_CONNECTIONS, NODE_PORT_HEADER_TIMEOUT};

/// A node port that could not be listened on.
#[derive(Debug, Error)]
#[error("failed to listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The open listeners of one node. Dropping it closes them.
pub struct NodePorts {
    network: Arc<Network>,
    address: IpAddr,
    threads: Handle,
    open: BTreeMap<u16, CancellationToken>,
}

impl Drop for NodePorts {
    fn drop(&mut self) {
        for stop in self.open.values() {
            stop.cancel();
        }
    }
}

impl NodePorts {
    /// No listener yet; `address` is the node's. Connections are served on `threads`, best those of whoever answers.
    pub fn new(network: Arc<Network>, address: IpAddr, threads: Handle) -> NodePorts {
        NodePorts { network, address, threads, open: BTreeMap::new() }
    }

    /// Opens what is missing and closes what is no longer wanted; connections that are open end after their request.
    ///
    /// Returns the ports that could not be opened; the next call tries them again.
    pub async fn keep(&mut self, wanted: &BTreeSet<u16>) -> Vec<BindError> {
        self.open.retain(|port, stop| {
            let keep = wanted.contains(port);
            if !keep {
                stop.cancel();
            }
            keep
        });
        let mut failures = Vec::new();
        for port in wanted.iter().filter(|port| !self.open.contains_key(port)).copied().collect::<Vec<_>>() {
            let address = SocketAddr::new(self.address, port);
            match self.listen(address).await {
                Ok(stop) => drop(self.open.insert(port, stop)),
                Err(source) => failures.push(BindError { address, source }),
            }
        }
        failures
    }

    /// Listens at `address` until the answer is cancelled.
    async fn listen(&self, address: SocketAddr) -> io::Result<CancellationToken> {
        // A socket belongs to the threads that made it.
        let listener = self.threads.spawn(TcpListener::bind(address)).await.map_err(io::Error::other)??;
        let stop = CancellationToken::new();
        let task = serve(Arc::clone(&self.network), listener, address.port(), stop.clone());
        let _threads = self.threads.enter();
        shoal_link::tasks::spawn_connection("node port listener", task);
        Ok(stop)
    }
}

async fn serve(network: Arc<Network>, listener: TcpListener, port: u16, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(NODE_PORT_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(port, %error, "accepting a node port connection failed");
                    // Out of descriptors: give the connections that are open a moment to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (network, stop) = (Arc::clone(&network), stop.clone());
        shoal_link::tasks::spawn_connection("node port connection", async move {
            let _permit = permit;
            serve_connection(network, stream, port, stop).await;
        });
    }
}

async fn serve_connection(network: Arc<Network>, stream: TcpStream, port: u16, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let network = Arc::clone(&network);
        async move { Ok::<_, std::convert::Infallible>(answer(&network, port, request).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(NODE_PORT_HEADER_TIMEOUT).keep_alive(true);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(network: &Network, port: u16, request: Request<Incoming>) -> Response<Body> {
    let request = request.map(|body| body.map_err(Into::into).boxed());
    network.call_node_port(port, request).await.unwrap_or_else(|error| error.response())
}
