//! `pods/portforward`: connections of a client to ports of a pod, each over a stream of its own to the node.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Response;
use http_body_util::BodyExt;
use shoal_api::Status;
use shoal_streams::port_forward::{self, CHANNEL_PROTOCOL, MOST_PORTS, Ports, SPDY_PROTOCOL, TUNNEL_PROTOCOL};
use shoal_streams::{Duplex, websocket};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::streams::{self, Carrier, ClientIo, Protocols};
use crate::config::NodeRequests;
use crate::handler::Call;
use crate::{Body, body};

/// Pieces that wait in a forwarded connection, each way.
const PIECES: usize = 8;

const PROTOCOLS: Protocols = Protocols {
    websocket: &[TUNNEL_PROTOCOL, CHANNEL_PROTOCOL],
    websocket_fallback: Some(CHANNEL_PROTOCOL),
    spdy: &[SPDY_PROTOCOL],
};

/// Opens the way; connections come when the client asks for them.
pub(crate) async fn answer(mut call: Call) -> Result<Response<Body>, Status> {
    streams::require_create(&call, "portforward")?;
    let (headers, carrier) = streams::negotiate(&call.headers, &PROTOCOLS)?;
    let wanted = match carrier {
        Carrier::WebSocket(CHANNEL_PROTOCOL) => ports(&call)?,
        Carrier::WebSocket(_) | Carrier::Spdy(_) => Vec::new(),
    };
    let place = streams::place(&call).await?;
    let ports = Arc::new(PodPorts {
        nodes: Arc::clone(&call.shared.config.node_requests),
        node: place.node,
        path: format!("/portForward/{}/{}", call.namespace().unwrap_or_default(), call.name()?),
        tasks: call.shared.tasks.clone(),
    });
    streams::switch(&mut call, headers, move |io| session(io, carrier, wanted, ports).boxed())
}

/// The ports of the older protocol, which stand in the query.
fn ports(call: &Call) -> Result<Vec<u16>, Status> {
    let listed = call.query.all("ports").flat_map(|value| value.split(','));
    let ports: Option<Vec<u16>> = listed.map(|port| port.parse().ok().filter(|port| *port > 0)).collect();
    match ports {
        Some(ports) if (1..=MOST_PORTS).contains(&ports.len()) => Ok(ports),
        _ => Err(Status::bad_request(format!(
            "ports: from 1 to {MOST_PORTS} numbers from 1 to 65535 are required, parted by commas"
        ))),
    }
}

async fn session(io: ClientIo, carrier: Carrier, wanted: Vec<u16>, ports: Arc<PodPorts>) {
    match carrier {
        Carrier::WebSocket(TUNNEL_PROTOCOL) => {
            let (reader, writer) = websocket::tunnel(websocket::open(io).await);
            port_forward::over_spdy(reader, writer, ports).await;
        }
        Carrier::WebSocket(_) => port_forward::over_websocket(websocket::open(io).await, &wanted, ports).await,
        Carrier::Spdy(_) => {
            let (reader, writer) = tokio::io::split(io);
            port_forward::over_spdy(reader, writer, ports).await;
        }
    }
}

/// The ports of one pod, through its node.
struct PodPorts {
    nodes: Arc<dyn NodeRequests>,
    node: String,
    path: String,
    tasks: TaskTracker,
}

impl Ports for PodPorts {
    fn connect(&self, port: u16) -> BoxFuture<'static, Result<Duplex<Bytes>, String>> {
        let (nodes, node, path) = (Arc::clone(&self.nodes), self.node.clone(), format!("{}?port={port}", self.path));
        let tasks = self.tasks.clone();
        async move {
            let (sender, request_body) = body::channel(PIECES);
            let answer = streams::ask_node(nodes.as_ref(), &node, path, request_body).await;
            let answer = answer.map_err(|status| status.message)?;
            let (pieces, receiver) = mpsc::channel(PIECES);
            tasks.spawn(read_all(answer, pieces));
            Ok(Duplex { sender, receiver })
        }
        .boxed()
    }
}

/// Ends with the pod's connection, or when nobody reads it any more.
async fn read_all(mut body: Body, pieces: mpsc::Sender<Bytes>) {
    loop {
        tokio::select! {
            frame = body.frame() => {
                let Some(Ok(frame)) = frame else { return };
                let Ok(bytes) = frame.into_data() else { continue };
                if pieces.send(bytes).await.is_err() {
                    return;
                }
            }
            () = pieces.closed() => return,
        }
    }
}
