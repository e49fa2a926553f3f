//! One connection to a peer that has proved who it is, and the streams on it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::{PeerIdentity, limits};

/// What a stream is for: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKind(pub u8);

impl StreamKind {
    /// One HTTP/1.1 request and its response; see [`crate::http`].
    pub const HTTP: Self = Self(1);
    /// The bytes of one TCP connection to a pod's port, after a head that says which.
    pub const TCP: Self = Self(2);
    /// Datagrams for pods, one after another, each with its addresses.
    pub const DATAGRAMS: Self = Self(3);
    /// The first of the sixteen kinds that the replicated store uses as it likes.
    pub const STORE_FIRST: Self = Self(0x10);
    /// The last of them.
    pub const STORE_LAST: Self = Self(0x1f);
}

/// A connection to an authenticated peer. Cheap to clone; it lasts until one side closes it or falls silent.
#[derive(Clone)]
pub struct Connection {
    connection: quinn::Connection,
    peer: Arc<PeerIdentity>,
    expires: Timestamp,
}

/// The connection is gone, or gave no stream in time. Dial again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the connection to {peer} is lost: {reason}")]
pub struct ConnectionLost {
    /// The peer's common name.
    pub peer: String,
    /// Why.
    pub reason: String,
}

impl Connection {
    pub(crate) fn new(connection: quinn::Connection, peer: PeerIdentity, expires: Timestamp) -> Self {
        Self { connection, peer: Arc::new(peer), expires }
    }

    /// Who the other side is.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// When the certificate that the other side showed ceases to be valid, and with it this connection's claim.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Where the other side's packets come from.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Tells this connection from every other one of this process.
    pub fn stable_id(&self) -> usize {
        self.connection.stable_id()
    }

    /// Opens a stream. Cancel safe.
    ///
    /// # Errors
    /// [`ConnectionLost`], also when the peer allows no further stream for too long.
    pub async fn open(&self, kind: StreamKind) -> Result<Stream, ConnectionLost> {
        let open = async {
            let (mut send, receive) = self.connection.open_bi().await.map_err(|error| self.lost(error))?;
            send.write_all(&[kind.0]).await.map_err(|error| self.lost(error))?;
            Ok(Stream { send, receive })
        };
        tokio::time::timeout(limits::OPEN_TIMEOUT, open)
            .await
            .unwrap_or_else(|_| Err(self.lost("it gave no stream in time")))
    }

    /// Opens a stream whose bytes go before (higher) or after (lower) those of others; 0 is the ordinary priority.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_with_priority(&self, kind: StreamKind, priority: i32) -> Result<Stream, ConnectionLost> {
        let stream = self.open(kind).await?;
        // It fails only on a stream that is closed, which the first write will say.
        let _ = stream.send.set_priority(priority);
        Ok(stream)
    }

    /// Waits for the next stream that the peer opens. Not cancel safe: a stream may be lost.
    ///
    /// # Errors
    /// [`ConnectionLost`] when there will be none any more.
    pub async fn accept(&self) -> Result<(StreamKind, Stream), ConnectionLost> {
        loop {
            let (send, mut receive) = self.connection.accept_bi().await.map_err(|error| self.lost(error))?;
            // A peer that opens a stream says its kind in the same packet; one that does not loses the stream only.
            match receive.read_u8().await {
                Ok(kind) => return Ok((StreamKind(kind), Stream { send, receive })),
                Err(error) => {
                    tracing::debug!(peer = %self.peer.common_name, %error, "a stream ended before it said what it is for")
                }
            }
        }
    }

    /// Waits until the connection is gone; answers why.
    pub async fn closed(&self) -> ConnectionLost {
        self.lost(self.connection.closed().await)
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Closes the connection and every stream on it at once.
    pub fn close(&self) {
        self.connection.close(0u32.into(), b"closed");
    }

    fn lost(&self, reason: impl std::fmt::Display) -> ConnectionLost {
        ConnectionLost { peer: self.peer.common_name.clone(), reason: reason.to_string() }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Connection({} at {})", self.peer.common_name, self.remote_address())
    }
}

/// One stream: reliable, ordered, both ways. Dropping it ends the sending direction after what was written, and tells the
/// other side that nothing more is read.
#[derive(Debug)]
pub struct Stream {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl Stream {
    /// Ends when the other side wants no more of this stream, or has all of it.
    pub fn unwanted(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.send.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    /// Breaks both directions off, so that the other side does not take what it has for all there is.
    pub fn break_off(mut self) {
        // Both fail only on a stream that is over already.
        let _ = self.send.reset(0u32.into());
        let _ = self.receive.stop(0u32.into());
    }

    /// The two directions apart.
    pub fn split(self) -> (quinn::RecvStream, quinn::SendStream) {
        (self.receive, self.send)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), context)
    }
}
