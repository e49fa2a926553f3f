//! The listeners that lead from the node's address into the network: one for each node port.
//!
//! A connection that comes to a process carries any protocol; one that comes to a function carries HTTP requests, each of
//! which finds its own endpoint.

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
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::forward::Network;
use crate::limits::{NODE_PORT_CONNECTIONS, NODE_PORT_HEADER_TIMEOUT, PIPE_BYTES};
use crate::streams::Opened;
use crate::table::Protocol;
use crate::{Body, node_datagrams};

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
    open: BTreeMap<(Protocol, u16), CancellationToken>,
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
    pub async fn keep(&mut self, wanted: &BTreeSet<(Protocol, u16)>) -> Vec<BindError> {
        self.open.retain(|port, stop| {
            let keep = wanted.contains(port);
            if !keep {
                stop.cancel();
            }
            keep
        });
        let mut failures = Vec::new();
        for port in wanted.iter().filter(|port| !self.open.contains_key(port)).copied().collect::<Vec<_>>() {
            let address = SocketAddr::new(self.address, port.1);
            match self.listen(port.0, address).await {
                Ok(stop) => drop(self.open.insert(port, stop)),
                Err(source) => failures.push(BindError { address, source }),
            }
        }
        failures
    }

    /// Listens at `address` until the answer is cancelled.
    async fn listen(&self, protocol: Protocol, address: SocketAddr) -> io::Result<CancellationToken> {
        let (network, stop) = (Arc::clone(&self.network), CancellationToken::new());
        // A socket belongs to the threads that made it.
        match protocol {
            Protocol::Tcp => {
                let listener = self.threads.spawn(TcpListener::bind(address)).await.map_err(io::Error::other)??;
                let _threads = self.threads.enter();
                let task = serve(network, listener, address.port(), stop.clone());
                shoal_link::tasks::spawn_connection("node port listener", task);
            }
            Protocol::Udp => {
                let socket = self.threads.spawn(UdpSocket::bind(address)).await.map_err(io::Error::other)??;
                let _threads = self.threads.enter();
                let task = node_datagrams::serve(network, socket, address.port(), stop.clone());
                shoal_link::tasks::spawn_connection("node port listener", task);
            }
        }
        Ok(stop)
    }
}

async fn serve(network: Arc<Network>, listener: TcpListener, port: u16, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(NODE_PORT_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
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
            let _ = stream.set_nodelay(true);
            match network.open_node_port(port, peer).await {
                Ok(Opened::Function) => serve_requests(network, stream, port, stop).await,
                Ok(Opened::Stream(mut pod)) => {
                    let mut stream = stream;
                    // Either side may break it off; the other hears of it when its half is dropped.
                    let _ =
                        tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut pod, PIPE_BYTES, PIPE_BYTES).await;
                }
                Err(error) => tracing::debug!(port, %error, "a node port connection found nobody"),
            }
        });
    }
}

async fn serve_requests(network: Arc<Network>, stream: TcpStream, port: u16, stop: CancellationToken) {
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
