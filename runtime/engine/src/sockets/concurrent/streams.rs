//! The streams of TCP: the bytes that a guest sends and receives, and the connections that it accepts.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::PollSemaphore;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Resource, Source, StreamConsumer, StreamProducer, StreamResult, VecBuffer};

use super::super::Place;
use super::super::grant::{Accepted, ByteStream, Listener};
use super::TcpSocket;
use super::tcp::Inherited;
use super::types::ErrorCode;
use crate::host::Host;

/// How much is read of a connection when a guest only asks whether there is something, in bytes.
const TASTE: usize = 4 * 1024;

/// How a direction of a connection ended.
type Outcome = Result<(), ErrorCode>;

/// What a stream answers that has nothing yet.
fn waits(finish: bool) -> Poll<wasmtime::Result<StreamResult>> {
    // A guest that takes its wish back is not to wait for it.
    if finish { Poll::Ready(Ok(StreamResult::Cancelled)) } else { Poll::Pending }
}

/// Carries what a guest sends. When the guest ends its stream this direction of the connection ends too.
pub(super) struct Sending {
    half: Option<WriteHalf<ByteStream>>,
    told: Option<oneshot::Sender<Outcome>>,
    _place: Place,
}

impl Sending {
    pub(super) fn new(half: WriteHalf<ByteStream>, place: Place) -> Self {
        Self { half: Some(half), told: None, _place: place }
    }

    /// Tells once how it ended.
    pub(super) fn outcome(&mut self) -> oneshot::Receiver<Outcome> {
        let (told, outcome) = oneshot::channel();
        self.told = Some(told);
        outcome
    }

    fn break_off(&mut self, error: &std::io::Error) {
        self.half = None;
        tell(&mut self.told, Err(of_stream(error)));
    }
}

impl StreamConsumer<Host> for Sending {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, Host>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some(half) = &mut self.half else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        let mut source = source.as_direct(store);
        let bytes = source.remaining();
        if bytes.is_empty() {
            // Whether there is room shows only when something is written.
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match Pin::new(half).poll_write(context, bytes) {
            Poll::Ready(Ok(written)) if written > 0 => {
                source.mark_read(written);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Ok(_)) => {
                self.break_off(&std::io::ErrorKind::BrokenPipe.into());
                Poll::Ready(Ok(StreamResult::Dropped))
            }
            Poll::Ready(Err(error)) => {
                self.break_off(&error);
                Poll::Ready(Ok(StreamResult::Dropped))
            }
            Poll::Pending => waits(finish),
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Some(half) = self.half.take() else { return };
        end(half, self.told.take());
    }
}

/// Ends the sending direction of a connection after what was written.
pub(super) fn end(mut half: WriteHalf<ByteStream>, told: Option<oneshot::Sender<Outcome>>) {
    // Without threads there is nobody to carry on: they are about to end, and every connection with them.
    let Ok(threads) = Handle::try_current() else { return };
    threads.spawn(async move {
        let ended = half.shutdown().await.map_err(|error| of_stream(&error));
        if let Some(told) = told {
            // The guest may not want to know.
            let _ = told.send(ended);
        }
    });
}

/// Gives a guest what comes in, as it asks for it.
pub(super) struct Receiving {
    half: Option<ReadHalf<ByteStream>>,
    /// What came while the guest asked whether there is something.
    waiting: Bytes,
    told: Option<oneshot::Sender<Outcome>>,
    _place: Place,
}

impl Receiving {
    pub(super) fn new(half: ReadHalf<ByteStream>, place: Place) -> Self {
        Self { half: Some(half), waiting: Bytes::new(), told: None, _place: place }
    }

    /// Tells once how it ended.
    pub(super) fn outcome(&mut self) -> oneshot::Receiver<Outcome> {
        let (told, outcome) = oneshot::channel();
        self.told = Some(told);
        outcome
    }

    /// Reads into `buffer`; nothing means that the direction is over.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let Some(half) = &mut self.half else { return Poll::Ready(0) };
        let mut read = ReadBuf::new(buffer);
        let outcome = match Pin::new(half).poll_read(context, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if !read.filled().is_empty() => return Poll::Ready(read.filled().len()),
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => Err(of_stream(&error)),
        };
        self.half = None;
        tell(&mut self.told, outcome);
        Poll::Ready(0)
    }

    /// Ready when there is something to read, or nothing will come any more.
    fn poll_taste(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_empty() && self.half.is_some() {
            let mut bytes = BytesMut::zeroed(TASTE);
            let Poll::Ready(length) = self.poll_read(context, &mut bytes) else { return Poll::Pending };
            bytes.truncate(length);
            self.waiting = bytes.freeze();
        }
        Poll::Ready(())
    }
}

impl StreamProducer<Host> for Receiving {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, Host>,
        destination: Destination<'a, u8, VecBuffer<u8>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return match self.poll_taste(context) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => waits(finish),
            };
        }
        let mut destination = destination.as_direct(store, TASTE);
        let room = destination.remaining();
        let length = if self.waiting.is_empty() {
            match self.poll_read(context, room) {
                Poll::Ready(0) => return Poll::Ready(Ok(StreamResult::Dropped)),
                Poll::Ready(length) => length,
                Poll::Pending => return waits(finish),
            }
        } else {
            let length = self.waiting.len().min(room.len());
            room[..length].copy_from_slice(&self.waiting.split_to(length));
            length
        };
        destination.mark_written(length);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

impl Drop for Receiving {
    /// A guest that wants no more has had what it wanted.
    fn drop(&mut self) {
        tell(&mut self.told, Ok(()));
    }
}

fn tell(told: &mut Option<oneshot::Sender<Outcome>>, outcome: Outcome) {
    if let Some(told) = told.take() {
        // The guest may not want to know.
        let _ = told.send(outcome);
    }
}

fn of_stream(error: &std::io::Error) -> ErrorCode {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => ErrorCode::ConnectionBroken,
        std::io::ErrorKind::ConnectionReset => ErrorCode::ConnectionReset,
        std::io::ErrorKind::ConnectionAborted => ErrorCode::ConnectionAborted,
        std::io::ErrorKind::TimedOut => ErrorCode::Timeout,
        _ => ErrorCode::Other(Some(error.to_string())),
    }
}

/// Gives a guest the connections that others open to its port. Dropping it closes the port.
pub(super) struct Arriving {
    listener: Box<dyn Listener>,
    inherited: Inherited,
    places: PollSemaphore,
    /// Who came while the guest asked whether somebody is there.
    waiting: Option<Accepted>,
}

impl Arriving {
    pub(super) fn new(listener: Box<dyn Listener>, inherited: Inherited, places: PollSemaphore) -> Self {
        Self { listener, inherited, places, waiting: None }
    }

    /// Ready when somebody is there, or nobody will come any more.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if self.waiting.is_none() {
            let Poll::Ready(accepted) = self.listener.poll_accept(context) else { return Poll::Pending };
            self.waiting = accepted;
        }
        Poll::Ready(self.waiting.is_some())
    }
}

impl StreamProducer<Host> for Arriving {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Resource<TcpSocket>>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, Host>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        match self.poll_accept(context) {
            Poll::Ready(true) => {}
            Poll::Ready(false) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending => return waits(finish),
        }
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        // A guest that has as many sockets as it may lets this one wait.
        let Poll::Ready(place) = self.places.poll_acquire(context) else { return waits(finish) };
        let (Some(place), Some(accepted)) = (place, self.waiting.take()) else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let socket = self.inherited.connected(accepted, place.into());
        let socket = store.data_mut().sockets().table.push(socket)?;
        destination.set_buffer(Some(socket));
        Poll::Ready(Ok(StreamResult::Completed))
    }
}
