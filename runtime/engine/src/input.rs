//! A guest's standard input: a pipe that the embedder fills, bounded, so that whoever writes waits for the guest.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, StreamError, StreamResult};

/// How many pieces wait in a pipe for the guest to read them.
const PIECES: usize = 16;

/// What a guest reads as its standard input. Clones are the same input, of which each byte is read once.
#[derive(Clone, Default)]
pub struct Stdin {
    pipe: Option<Arc<Mutex<Pipe>>>,
}

struct Pipe {
    receiver: mpsc::Receiver<Bytes>,
    /// What came and is not yet read.
    rest: Bytes,
    is_over: bool,
    /// Whether the guest has ever asked for it.
    is_used: bool,
    /// The guest, where it waits.
    guest: Option<Waker>,
}

/// The end of a pipe that the embedder writes to. The guest's input ends when all its clones are gone.
#[derive(Clone)]
pub struct StdinWriter(mpsc::Sender<Bytes>);

impl StdinWriter {
    /// Gives the guest these bytes, once there is room; false when the guest is gone. Cancel safe: all or nothing is given.
    pub async fn write(&self, bytes: Bytes) -> bool {
        bytes.is_empty() || self.0.send(bytes).await.is_ok()
    }
}

impl Stdin {
    /// An input that is over at once.
    pub fn empty() -> Self {
        Self::default()
    }

    /// An input that is what is written to the other end.
    pub fn pipe() -> (StdinWriter, Self) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let pipe = Pipe { receiver, rest: Bytes::new(), is_over: false, is_used: false, guest: None };
        (StdinWriter(sender), Self { pipe: Some(Arc::new(Mutex::new(pipe))) })
    }

    /// Whether the guest has asked for input, so that it would see its end.
    pub(crate) fn is_used(&self) -> bool {
        self.lock().is_some_and(|pipe| pipe.is_used)
    }

    /// Takes no more; what is written already can still be read.
    pub(crate) fn close(&self) {
        let Some(mut pipe) = self.lock() else { return };
        pipe.receiver.close();
        if let Some(guest) = pipe.guest.take() {
            guest.wake();
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Pipe>> {
        Some(self.pipe.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ready when there is something to read or nothing will come any more; says whether it is the latter.
    fn poll_over(&self, context: &mut Context<'_>) -> Poll<bool> {
        self.lock().map_or(Poll::Ready(true), |mut pipe| pipe.poll_over(context))
    }
}

impl Pipe {
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.is_used = true;
        while self.rest.is_empty() && !self.is_over {
            match self.receiver.poll_recv(context) {
                Poll::Ready(Some(bytes)) => self.rest = bytes,
                Poll::Ready(None) => self.is_over = true,
                Poll::Pending => {
                    self.guest = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(self.rest.is_empty())
    }

    fn take(&mut self, most: usize) -> Bytes {
        self.rest.split_to(most.min(self.rest.len()))
    }
}

/// A guest's view of its input, which may be a terminal.
pub(crate) struct Input {
    pub stdin: Stdin,
    pub is_terminal: bool,
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.stdin.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.stdin.clone())
    }
}

impl AsyncRead for Stdin {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_over(context).map(|is_over| {
            if let Some(mut pipe) = self.lock().filter(|_| !is_over) {
                buffer.put_slice(&pipe.take(buffer.remaining()));
            }
            Ok(())
        })
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll_over(context)).await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let Some(mut pipe) = self.lock() else { return Err(StreamError::Closed) };
        match pipe.poll_over(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(true) => Err(StreamError::Closed),
            Poll::Ready(false) => Ok(pipe.take(size)),
            Poll::Pending => Ok(Bytes::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_byte_is_read_once_and_then_the_input_ends() {
        let (writer, mut stdin) = Stdin::pipe();
        assert!(stdin.read(8).is_ok_and(|bytes| bytes.is_empty()));
        assert!(writer.write(Bytes::from_static(b"abcdef")).await);
        let mut other = stdin.clone();
        stdin.ready().await;
        assert!(stdin.read(2).is_ok_and(|bytes| bytes == "ab"));
        assert!(other.read(8).is_ok_and(|bytes| bytes == "cdef"));
        drop(writer);
        stdin.ready().await;
        assert!(matches!(stdin.read(8), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn an_input_that_is_closed_is_read_to_its_end() {
        let (writer, mut stdin) = Stdin::pipe();
        assert!(!stdin.is_used());
        let mut other = stdin.clone();
        let mut waiting = Box::pin(other.ready());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(writer.write(Bytes::from_static(b"abc")).await);
        stdin.close();
        assert!(!writer.write(Bytes::from_static(b"d")).await);
        waiting.await;
        assert!(stdin.is_used() && stdin.read(8).is_ok_and(|bytes| bytes == "abc"));
        stdin.ready().await;
        assert!(matches!(stdin.read(8), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn whoever_writes_waits_for_the_guest_and_learns_that_it_is_gone() {
        let (writer, stdin) = Stdin::pipe();
        for _ in 0..PIECES {
            assert!(writer.write(Bytes::from_static(b"x")).await);
        }
        let mut waiting = Box::pin(writer.write(Bytes::from_static(b"y")));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(stdin);
        assert!(!waiting.await);
    }
}
