//! A connection's two directions as a guest reads and writes them.
//!
//! What a guest has written is on its way: it goes on when the guest does something else, and also when it drops the
//! stream, as with a kernel's sockets.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::runtime::Handle;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use super::grant::ByteStream;
use super::pending::Pending;

/// The largest piece that is read or written at once, in bytes.
const PIECE: usize = 64 * 1024;

/// The two directions; the socket and its streams share them.
pub(crate) fn split(stream: ByteStream) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    (
        Reader(Arc::new(Mutex::new(Reading { half: Some(read), waiting: Bytes::new(), failure: None }))),
        Writer(Arc::new(Mutex::new(Writing { state: State::Idle(write) }))),
    )
}

/// The receiving direction.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Mutex<Reading>>);

struct Reading {
    half: Option<ReadHalf<ByteStream>>,
    /// What came while somebody waited for it.
    waiting: Bytes,
    failure: Option<std::io::Error>,
}

impl Reader {
    /// Nothing more is read.
    pub(crate) fn close(&self) {
        let mut reading = lock(&self.0);
        reading.half = None;
        reading.waiting.clear();
    }
}

impl Reading {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        if self.waiting.is_empty() {
            // Whoever must wait asks `ready`, which is woken.
            let _ = self.poll_fill(&mut Context::from_waker(Waker::noop()), size);
        }
        if !self.waiting.is_empty() {
            return Ok(self.waiting.split_to(size.min(self.waiting.len())));
        }
        match self.failure.take() {
            Some(error) => Err(StreamError::LastOperationFailed(error.into())),
            None if self.half.is_none() => Err(StreamError::Closed),
            None => Ok(Bytes::new()),
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>, size: usize) -> Poll<()> {
        let Some(half) = self.half.as_mut().filter(|_| self.waiting.is_empty()) else { return Poll::Ready(()) };
        let mut bytes = BytesMut::zeroed(size.min(PIECE));
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(half).poll_read(context, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {
                let length = buffer.filled().len();
                bytes.truncate(length);
                self.waiting = bytes.freeze();
                if length == 0 {
                    self.half = None;
                }
            }
            Poll::Ready(Err(error)) => {
                self.half = None;
                self.failure = Some(error);
            }
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| lock(&self.0).poll_fill(context, PIECE)).await;
    }
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        lock(&self.0).read(size)
    }
}

/// The sending direction.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Mutex<Writing>>);

struct Writing {
    state: State,
}

enum State {
    Idle(WriteHalf<ByteStream>),
    /// What was written goes out.
    Busy(Pending<std::io::Result<WriteHalf<ByteStream>>>),
    Closed,
}

impl Writer {
    /// Ends this direction after what was written.
    pub(crate) fn close(&self) {
        lock(&self.0).close();
    }
}

impl Writing {
    /// Brings what has ended up to date.
    fn settle(&mut self) -> StreamResult<()> {
        if let State::Busy(pending) = &mut self.state
            && let Poll::Ready(written) = pending.take()
        {
            match written {
                Some(Ok(half)) => self.state = State::Idle(half),
                Some(Err(error)) => {
                    self.state = State::Closed;
                    return Err(failed(error));
                }
                None => self.state = State::Closed,
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        self.settle()?;
        let mut half = match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(half) => half,
            State::Busy(pending) => {
                self.state = State::Busy(pending);
                return Err(StreamError::trap("more was written than is permitted"));
            }
            State::Closed => return Err(StreamError::Closed),
        };
        while !bytes.is_empty() {
            match Pin::new(&mut half).poll_write(&mut Context::from_waker(Waker::noop()), &bytes) {
                Poll::Ready(Ok(0)) => return Err(StreamError::Closed),
                Poll::Ready(Ok(written)) => drop(bytes.split_to(written)),
                Poll::Ready(Err(error)) => return Err(failed(error)),
                Poll::Pending => {
                    let rest = async move { half.write_all(&bytes).await.map(|()| half) };
                    self.state = State::Busy(Pending::spawn(rest));
                    return Ok(());
                }
            }
        }
        self.state = State::Idle(half);
        Ok(())
    }

    fn close(&mut self) {
        // Without threads there is nobody to carry on: they are about to end, and every connection with them.
        let Ok(threads) = Handle::try_current() else { return };
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(mut half) => {
                threads.spawn(async move {
                    let _ = half.shutdown().await;
                });
            }
            State::Busy(mut pending) => {
                threads.spawn(async move {
                    pending.ready().await;
                    if let Poll::Ready(Some(Ok(mut half))) = pending.take() {
                        let _ = half.shutdown().await;
                    }
                });
            }
            State::Closed => {}
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| match &mut lock(&self.0).state {
            State::Busy(pending) => pending.poll_ready(context),
            State::Idle(_) | State::Closed => Poll::Ready(()),
        })
        .await;
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn check_write(&mut self) -> StreamResult<usize> {
        let mut writing = lock(&self.0);
        writing.settle()?;
        match &writing.state {
            State::Idle(_) => Ok(PIECE),
            State::Busy(_) => Ok(0),
            State::Closed => Err(StreamError::Closed),
        }
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > PIECE {
            return Err(StreamError::trap("more was written than is permitted"));
        }
        lock(&self.0).write(bytes)
    }

    /// Everything that is written is on its way already.
    fn flush(&mut self) -> StreamResult<()> {
        let mut writing = lock(&self.0);
        writing.settle()?;
        match &writing.state {
            State::Closed => Err(StreamError::Closed),
            State::Idle(_) | State::Busy(_) => Ok(()),
        }
    }
}

fn failed(error: std::io::Error) -> StreamError {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => StreamError::Closed,
        _ => StreamError::LastOperationFailed(error.into()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const LONG: usize = 1 << 20;

    #[tokio::test]
    async fn what_was_written_arrives_though_the_writer_has_gone() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (reader, mut writer) = split(Box::new(ours));
        let mut sent = 0;
        while sent < LONG {
            writer.ready().await;
            let permitted = writer.check_write().expect("it is open");
            if permitted > 0 {
                writer.write(Bytes::from(vec![7; permitted])).expect("it is permitted");
                sent += permitted;
            }
            if sent == LONG {
                break;
            }
            let mut some = vec![0; PIECE];
            theirs.read_exact(&mut some).await.expect("bytes");
        }
        drop((reader, writer));
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.expect("the rest, and an end");
        assert_eq!(rest.len(), PIECE);
        assert!(rest.iter().all(|byte| *byte == 7));
    }

    #[tokio::test]
    async fn one_direction_ends_and_the_other_goes_on() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (mut reader, mut writer) = split(Box::new(ours));
        writer.write(Bytes::from_static(b"question")).expect("it is open");
        writer.close();
        assert!(matches!(writer.check_write(), Err(StreamError::Closed)));
        let mut asked = String::new();
        theirs.read_to_string(&mut asked).await.expect("a question, and an end");
        assert_eq!(asked, "question");
        assert!(reader.read(10).expect("nothing yet").is_empty());
        theirs.write_all(b"answer").await.expect("it is open");
        drop(theirs);
        reader.ready().await;
        assert_eq!(reader.read(3).expect("bytes"), "ans");
        assert_eq!(reader.read(10).expect("bytes"), "wer");
        reader.ready().await;
        assert!(matches!(reader.read(10), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn a_full_pipe_permits_nothing_until_it_is_read() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let (_reader, mut writer) = split(Box::new(ours));
        writer.write(Bytes::from(vec![1; 100])).expect("the first piece is taken");
        assert_eq!(writer.check_write().expect("it is open"), 0);
        let mut all = vec![0; 100];
        theirs.read_exact(&mut all).await.expect("bytes");
        writer.ready().await;
        assert_eq!(writer.check_write().expect("it is open"), PIECE);
        drop(theirs);
        assert!(matches!(writer.write(Bytes::from_static(b"x")), Err(StreamError::Closed)));
    }
}
