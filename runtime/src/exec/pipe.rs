//! What a command prints, on its way to a client: a queue of messages that makes the guest wait when it is full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use shoal_streams::{Channel, Message};
use tokio::sync::mpsc;

use super::terminal;
use crate::guests::OutputSink;
use crate::logs::Stream;

/// Bytes that wait for the client.
const ROOM: usize = 256 << 10;
/// A guest that finds less room than this waits.
const LEAST: usize = 4 << 10;

/// The guest's end.
pub struct Pipe {
    messages: mpsc::UnboundedSender<Message>,
    level: Arc<Level>,
    is_terminal: bool,
}

/// The client's end.
pub struct PipeReader {
    messages: mpsc::UnboundedReceiver<Message>,
    level: Arc<Level>,
}

/// How much waits, and who waits for less.
#[derive(Default)]
struct Level {
    queued: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
}

/// Both ends. On a terminal output and errors are one stream, with the line ends of a terminal.
pub fn pipe(is_terminal: bool) -> (Arc<Pipe>, PipeReader) {
    let (sender, messages) = mpsc::unbounded_channel();
    let level = Arc::new(Level::default());
    (Arc::new(Pipe { messages: sender, level: Arc::clone(&level), is_terminal }), PipeReader { messages, level })
}

impl Level {
    fn room(&self) -> usize {
        ROOM.saturating_sub(self.queued.load(Ordering::Acquire))
    }
}

impl Pipe {
    /// Shows the client what it typed itself.
    pub fn echo(&self, bytes: Vec<u8>) {
        self.send(Channel::Stdout, bytes.into());
    }

    fn send(&self, channel: Channel, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.level.queued.fetch_add(bytes.len(), Ordering::AcqRel);
        // A client that is gone ends the command.
        let _ = self.messages.send(Message { channel, bytes });
    }
}

impl OutputSink for Pipe {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        match stream {
            _ if self.is_terminal => self.send(Channel::Stdout, terminal::line_ends(bytes).into()),
            Stream::Stdout => self.send(Channel::Stdout, Bytes::copy_from_slice(bytes)),
            Stream::Stderr => self.send(Channel::Stderr, Bytes::copy_from_slice(bytes)),
        }
    }

    fn room(&self) -> usize {
        let room = self.level.room();
        if room < LEAST { 0 } else { room }
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.room() > 0 {
            return Poll::Ready(());
        }
        let mut waiting = self.level.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been read while the lock was taken.
        if self.room() > 0 {
            return Poll::Ready(());
        }
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl PipeReader {
    /// The next message; none when the guest's end is gone. Cancel safe.
    pub async fn read(&mut self) -> Option<Message> {
        let message = self.messages.recv().await?;
        self.level.queued.fetch_sub(message.bytes.len(), Ordering::AcqRel);
        if self.level.room() >= LEAST {
            let waiting = std::mem::take(&mut *self.level.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_guest_waits_while_the_client_does_not_read() {
        let (pipe, mut reader) = pipe(false);
        while pipe.room() > 0 {
            pipe.write(Stream::Stdout, &[b'x'; 4096]);
        }
        let mut waiting = Box::pin(std::future::poll_fn(|context| pipe.poll_room(context)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(reader.read().await.map(|message| message.bytes.len()), Some(4096));
        waiting.await;
        assert!(pipe.room() > 0);
    }

    #[tokio::test]
    async fn a_terminal_has_one_stream() {
        let (pipe, mut reader) = pipe(true);
        pipe.write(Stream::Stderr, b"a\nb");
        assert_eq!(reader.read().await, Some(Message::new(Channel::Stdout, &b"a\r\nb"[..])));
        drop(pipe);
        assert_eq!(reader.read().await, None);
    }
}
