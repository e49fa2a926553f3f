//! A connection: the client opens streams, both sides write to them.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frame::{Frame, Reader, Writer};
use super::headers::Headers;

/// How many streams one connection may have at once: a forwarded connection takes two.
const STREAMS: usize = 2_000;
/// How many pieces wait in a stream to be read.
const PIECES: usize = 16;
/// The most bytes of a frame that is sent.
const CHUNK: usize = 32 << 10;
/// The status of a stream that is too much (section 2.6.3).
const REFUSED_STREAM: u32 = 3;

/// The streams that a client opens.
pub struct Connection {
    opened: mpsc::Receiver<SpdyStream>,
    frames: mpsc::Sender<Frame>,
}

impl Connection {
    /// The next; none when the connection has ended.
    pub async fn accept(&mut self) -> Option<SpdyStream> {
        self.opened.recv().await
    }

    /// Ends it, after all that was sent.
    pub async fn close(self) {
        // One that has ended is closed.
        let _ = self.frames.send(Frame::GoAway).await;
    }
}

/// One stream, open both ways. Dropping it without [`SpdyStream::finish`] leaves the client's side open.
pub struct SpdyStream {
    id: u32,
    headers: Headers,
    receiver: mpsc::Receiver<Bytes>,
    sender: StreamSender,
}

/// The way back to the client.
#[derive(Clone)]
pub struct StreamSender {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

impl SpdyStream {
    /// What the client said of it.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The next bytes; none when no more come.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }

    /// Says that it is taken.
    pub async fn reply(&self) {
        // A connection that is gone ends everything by itself.
        let _ = self.sender.frames.send(Frame::SynReply { id: self.id, headers: Headers::default() }).await;
    }

    /// Breaks it off.
    pub async fn reset(self) {
        let _ = self.sender.frames.send(Frame::Reset { id: self.id, status: REFUSED_STREAM }).await;
    }

    /// Its two directions.
    pub fn split(self) -> (StreamSender, mpsc::Receiver<Bytes>) {
        (self.sender, self.receiver)
    }
}

impl StreamSender {
    /// Sends bytes; false when the connection is gone.
    pub async fn write(&self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(CHUNK));
            if self.frames.send(Frame::Data { id: self.id, bytes: piece, is_last: false }).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Says that no more comes.
    pub async fn finish(self) {
        let _ = self.frames.send(Frame::Data { id: self.id, bytes: Bytes::new(), is_last: true }).await;
    }
}

/// A connection over `reader` and `writer`, and the work that moves its frames. The work is done when the connection was closed, or
/// when the client has gone, or broken the protocol, and its streams are dropped.
pub fn serve<R, W>(reader: R, writer: W) -> (Connection, impl Future<Output = ()> + Send)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (opens, opened) = mpsc::channel(PIECES);
    let (frames, outgoing) = mpsc::channel(PIECES);
    let incoming = Incoming { opens, frames: frames.clone(), streams: HashMap::new() };
    let work = async move {
        let mut writing = std::pin::pin!(write_all(outgoing, writer));
        tokio::select! {
            () = &mut writing => {}
            () = incoming.read_all(reader) => writing.await,
        }
    };
    (Connection { opened, frames }, work)
}

async fn write_all<W: AsyncWrite + Unpin>(mut outgoing: mpsc::Receiver<Frame>, mut io: W) {
    let mut writer = Writer::default();
    while let Some(frame) = outgoing.recv().await {
        let written = async {
            io.write_all(&writer.write(&frame)).await?;
            io.flush().await
        };
        if written.await.is_err() || frame == Frame::GoAway {
            break;
        }
    }
    let _ = io.shutdown().await;
}

struct Incoming {
    opens: mpsc::Sender<SpdyStream>,
    frames: mpsc::Sender<Frame>,
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Incoming {
    /// Reads until the client ends.
    async fn read_all<R: AsyncRead + Unpin>(mut self, mut io: R) {
        let mut reader = Reader::default();
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    if !self.take(frame).await {
                        return;
                    }
                }
                Ok(None) => match io.read_buf(reader.buffer()).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                Err(error) => {
                    tracing::debug!(%error, "a client's SPDY connection is broken");
                    return;
                }
            }
        }
    }

    /// Does what a frame says; false when the connection is to end.
    async fn take(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::SynStream { id, headers, is_last } => return self.open(id, headers, is_last).await,
            Frame::Data { id, bytes, is_last } => {
                if let Some(stream) = self.streams.get(&id)
                    && !bytes.is_empty()
                {
                    // Whoever drops a stream does not want what still comes.
                    let _ = stream.send(bytes).await;
                }
                if is_last {
                    self.streams.remove(&id);
                }
            }
            Frame::Reset { id, .. } => {
                self.streams.remove(&id);
            }
            Frame::Ping(id) if id % 2 == 1 => return self.frames.send(Frame::Ping(id)).await.is_ok(),
            Frame::GoAway => return false,
            Frame::Ping(_) | Frame::SynReply { .. } | Frame::Other => {}
        }
        true
    }

    async fn open(&mut self, id: u32, headers: Headers, is_last: bool) -> bool {
        self.streams.retain(|_, stream| !stream.is_closed());
        if self.streams.len() >= STREAMS || self.streams.contains_key(&id) {
            return self.frames.send(Frame::Reset { id, status: REFUSED_STREAM }).await.is_ok();
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        if !is_last {
            self.streams.insert(id, sender);
        }
        let stream = SpdyStream { id, headers, receiver, sender: StreamSender { id, frames: self.frames.clone() } };
        self.opens.send(stream).await.is_ok()
    }
}
