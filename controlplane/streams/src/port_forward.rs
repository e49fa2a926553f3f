//! Port-forward: each of a client's connections becomes one connection to a port of the pod.
//!
//! Over SPDY (alone, or tunnelled in a WebSocket as kubectl does) a connection is two streams with one request id: `data`, and `error`
//! for a sentence. Over the older WebSocket protocol the ports stand in the query, each with a data and an error channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::Duplex;
use crate::spdy::{self, SpdyStream};
use crate::websocket::{self, Frame, Socket};

/// The protocol that SPDY clients name.
pub const SPDY_PROTOCOL: &str = "portforward.k8s.io";

/// The sub-protocol of SPDY in a WebSocket.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The older sub-protocol, with the ports in the query.
pub const CHANNEL_PROTOCOL: &str = "v4.channel.k8s.io";

/// How long a connection's first stream waits for its second.
const PAIRING: Duration = Duration::from_secs(30);

/// The most ports of one client of the older protocol: each takes two of 256 channels.
pub const MOST_PORTS: usize = 127;

/// Opens connections to a pod.
pub trait Ports: Send + Sync + 'static {
    /// A connection to this port, or a sentence that says why there is none.
    fn connect(&self, port: u16) -> BoxFuture<'static, Result<Duplex<Bytes>, String>>;
}

/// Serves a SPDY client until it is gone.
pub async fn over_spdy<R, W>(reader: R, writer: W, ports: Arc<dyn Ports>)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (mut connection, work) = spdy::serve(reader, writer);
    let forwards = async move {
        let mut waiting: HashMap<String, (tokio::time::Instant, SpdyStream)> = HashMap::new();
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                stream = connection.accept() => {
                    let Some(stream) = stream else { break };
                    waiting.retain(|_, (since, _)| since.elapsed() < PAIRING);
                    if let Some((data, error)) = pair(&mut waiting, stream).await {
                        running.push(forward(data, error, Arc::clone(&ports)));
                    }
                }
                Some(()) = running.next() => {}
            }
        }
        while running.next().await.is_some() {}
    };
    tokio::join!(work, forwards);
}

/// The data and the error stream of one connection, once both are there.
async fn pair(
    waiting: &mut HashMap<String, (tokio::time::Instant, SpdyStream)>,
    stream: SpdyStream,
) -> Option<(SpdyStream, SpdyStream)> {
    let headers = stream.headers();
    let kind = headers.get("streamtype").unwrap_or_default().to_owned();
    let port = headers.get("port").unwrap_or_default();
    // Clients that name no request open a connection's streams one after the other.
    let id = headers.get("requestid").map_or_else(|| format!("port {port}"), str::to_owned);
    if !matches!(kind.as_str(), "data" | "error") || port.parse::<u16>().is_ok_and(|port| port == 0) {
        stream.reset().await;
        return None;
    }
    stream.reply().await;
    match waiting.remove(&id) {
        None => {
            waiting.insert(id, (tokio::time::Instant::now(), stream));
            None
        }
        Some((_, other)) if other.headers().get("streamtype") == Some(&kind) => {
            other.reset().await;
            waiting.insert(id, (tokio::time::Instant::now(), stream));
            None
        }
        Some((_, other)) => Some(if kind == "data" { (stream, other) } else { (other, stream) }),
    }
}

async fn forward(data: SpdyStream, error: SpdyStream, ports: Arc<dyn Ports>) {
    let port = data.headers().get("port").and_then(|port| port.parse().ok());
    let (error, _) = error.split();
    let (to_client, mut from_client) = data.split();
    let connected = match port {
        Some(port) => ports.connect(port).await,
        None => Err("port: a number from 1 to 65535 is required".to_owned()),
    };
    match connected {
        Ok(Duplex { sender, mut receiver }) => {
            let up = async move {
                while let Some(bytes) = from_client.recv().await {
                    if sender.send(bytes).await.is_err() {
                        return;
                    }
                }
            };
            let down = async {
                while let Some(bytes) = receiver.recv().await {
                    if !to_client.write(bytes).await {
                        return;
                    }
                }
            };
            // When the pod has closed, what the client still sends goes nowhere.
            let mut up = std::pin::pin!(up);
            let mut down = std::pin::pin!(down);
            tokio::select! {
                () = &mut up => down.await,
                () = &mut down => {}
            }
        }
        Err(message) => {
            error.write(message.into()).await;
        }
    }
    to_client.finish().await;
    error.finish().await;
}

/// Serves a client of the older protocol until it is gone.
pub async fn over_websocket<S>(socket: Socket<S>, wanted: &[u16], ports: Arc<dyn Ports>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let (frames, mut outgoing) = mpsc::channel::<Frame>(16);
    let mut to_pods = Vec::new();
    let mut running = FuturesUnordered::new();
    for (index, port) in wanted.iter().take(MOST_PORTS).enumerate() {
        let channel = u8::try_from(2 * index).unwrap_or_default();
        let (to_pod, from_client) = mpsc::channel(16);
        to_pods.push(to_pod);
        running.push(channels(channel, *port, from_client, frames.clone(), ports.connect(*port)));
    }
    drop(frames);
    let from_client = async {
        while let Some(Ok(frame)) = stream.next().await {
            let mut bytes = match frame {
                Frame::Binary(bytes) if !bytes.is_empty() => bytes,
                Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_) => continue,
                _ => return,
            };
            let channel = usize::from(bytes[0]);
            let Some(to_pod) = to_pods.get(channel / 2).filter(|_| channel % 2 == 0) else { return };
            // A pod that has closed reads no more.
            let _ = to_pod.send(bytes.split_off(1)).await;
        }
    };
    let to_client = async {
        while let Some(frame) = outgoing.recv().await {
            if sink.send(frame).await.is_err() {
                return;
            }
        }
    };
    let forwards = async { while running.next().await.is_some() {} };
    // Each connection holds the way to the client: when all have ended, that has too.
    let is_over = tokio::select! {
        () = from_client => false,
        ((), ()) = async { tokio::join!(to_client, forwards) } => true,
    };
    if let Some(mut socket) = stream.reunite(sink).ok().filter(|_| is_over) {
        websocket::close(&mut socket).await;
    }
}

/// One port of the older protocol: its data channel is `channel`, its error channel the next.
async fn channels(
    channel: u8,
    port: u16,
    mut from_client: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Frame>,
    connecting: BoxFuture<'static, Result<Duplex<Bytes>, String>>,
) {
    let frame = |channel: u8, bytes: &[u8]| {
        let mut whole = BytesMut::with_capacity(1 + bytes.len());
        whole.extend_from_slice(&[channel]);
        whole.extend_from_slice(bytes);
        Frame::Binary(whole.freeze())
    };
    // Each channel begins with its port, so that the client knows whose it is.
    for channel in [channel, channel + 1] {
        if frames.send(frame(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let Duplex { sender, mut receiver } = match connecting.await {
        Ok(connection) => connection,
        Err(message) => {
            let _ = frames.send(frame(channel + 1, message.as_bytes())).await;
            return;
        }
    };
    let up = async move {
        while let Some(bytes) = from_client.recv().await {
            if sender.send(bytes).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        while let Some(bytes) = receiver.recv().await {
            if frames.send(frame(channel, &bytes)).await.is_err() {
                return;
            }
        }
    };
    let mut up = std::pin::pin!(up);
    let mut down = std::pin::pin!(down);
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => {}
    }
}
