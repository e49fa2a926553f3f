//! The listeners that lead from the node's addresses into the network: one for each node port, and for each host port of a pod.
//!
//! A connection that comes to a process carries any protocol; one that comes to a function carries HTTP requests, each of
//! which finds its own endpoint.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
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
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::forward::Network;
use crate::limits::{NODE_PORT_CONNECTIONS, NODE_PORT_HEADER_TIMEOUT, PIPE_BYTES};
use crate::streams::Opened;
use crate::table::Protocol;
use crate::{Body, node_datagrams};

/// A port on the node: what it speaks and where it listens.
pub type NodePort = (Protocol, SocketAddr);

/// Where a listener leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// To the ready endpoints of the Service that has this node port.
    NodePort(u16),
    /// To one pod.
    Pod(SocketAddr),
}

/// A port that could not be listened on.
#[derive(Debug, Error)]
#[error("failed to listen on {} ({})", port.1, port.0.name())]
pub struct BindError {
    /// Which.
    pub port: NodePort,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The open listeners of one node. Dropping it closes them.
pub struct Listeners {
    network: Arc<Network>,
    threads: Handle,
    open: BTreeMap<NodePort, Open>,
}

/// An open listener.
struct Open {
    door: Door,
    stop: CancellationToken,
    /// Closed once its socket is.
    closed: oneshot::Receiver<()>,
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for open in self.open.values() {
            open.stop.cancel();
        }
    }
}

impl Listeners {
    /// No listener yet. Connections are served on `threads`, best those of whoever answers.
    pub fn new(network: Arc<Network>, threads: Handle) -> Listeners {
        Listeners { network, threads, open: BTreeMap::new() }
    }

    /// Opens what is missing and closes what is no longer wanted; connections that are open end after their request.
    ///
    /// Returns the ports that could not be opened; the next call tries them again.
    pub async fn keep(&mut self, wanted: &BTreeMap<NodePort, Door>) -> Vec<BindError> {
        let unwanted = self.open.extract_if(.., |port, open| wanted.get(port) != Some(&open.door));
        for (_, open) in unwanted.collect::<Vec<_>>() {
            open.stop.cancel();
            // The port may be wanted again at once; that the listener is gone is all that there is to hear.
            let _ = open.closed.await;
        }
        let mut failures = Vec::new();
        let missing = wanted.iter().filter(|(port, _)| !self.open.contains_key(port));
        for (port, door) in missing.map(|(port, door)| (*port, *door)).collect::<Vec<_>>() {
            match self.listen(port, door).await {
                Ok(open) => drop(self.open.insert(port, open)),
                Err(source) => failures.push(BindError { port, source }),
            }
        }
        failures
    }

    async fn listen(&self, (protocol, address): NodePort, door: Door) -> io::Result<Open> {
        let (network, stop) = (Arc::clone(&self.network), CancellationToken::new());
        let (open, closed) = oneshot::channel::<()>();
        // A socket belongs to the threads that made it.
        match protocol {
            Protocol::Tcp => {
                let listener = self.threads.spawn(TcpListener::bind(address)).await.map_err(io::Error::other)??;
                let _threads = self.threads.enter();
                let task = serve(network, listener, door, stop.clone());
                shoal_link::tasks::spawn_connection("node port listener", async move {
                    task.await;
                    drop(open);
                });
            }
            Protocol::Udp => {
                let socket = self.threads.spawn(UdpSocket::bind(address)).await.map_err(io::Error::other)??;
                let _threads = self.threads.enter();
                let task = node_datagrams::serve(network, socket, door, stop.clone());
                shoal_link::tasks::spawn_connection("node port listener", async move {
                    task.await;
                    drop(open);
                });
            }
        }
        Ok(Open { door, stop, closed })
    }
}

async fn serve(network: Arc<Network>, listener: TcpListener, door: Door, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(NODE_PORT_CONNECTIONS));
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => return,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(?door, %error, "accepting a node port connection failed");
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
            match network.open_door(door, peer).await {
                Ok(Opened::Function) => serve_requests(network, stream, door, stop).await,
                Ok(Opened::Stream(mut pod)) => {
                    let mut stream = stream;
                    // Either side may break it off; the other hears of it when its half is dropped.
                    let _ =
                        tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut pod, PIPE_BYTES, PIPE_BYTES).await;
                }
                Err(error) => tracing::debug!(?door, %error, "a node port connection found nobody"),
            }
        });
    }
}

async fn serve_requests(network: Arc<Network>, stream: TcpStream, door: Door, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let network = Arc::clone(&network);
        async move { Ok::<_, std::convert::Infallible>(answer(&network, door, request).await) }
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

async fn answer(network: &Network, door: Door, request: Request<Incoming>) -> Response<Body> {
    let request = request.map(|body| body.map_err(Into::into).boxed());
    let answered = match door {
        Door::NodePort(port) => network.call_node_port(port, request).await,
        Door::Pod(address) => network.call_pod(address, request).await,
    };
    answered.unwrap_or_else(|error| error.response())
}
