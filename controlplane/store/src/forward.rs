//! Questions to the leader, on streams that are kept for the next question.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::config::{Member, PeerIo, PeerStream, Peers};
use crate::leader::FORWARD_DEADLINE;
use crate::wire::{self, ForwardReply, ForwardRequest};

/// How many streams to one server are kept.
const KEPT: usize = 64;

/// A question got no answer.
pub(crate) enum Unsent {
    /// It certainly did not arrive.
    NotSent,
    /// It may have arrived.
    Sent(String),
}

/// The streams that nobody uses at the moment, by server.
pub(crate) struct Forwards {
    peers: Arc<dyn Peers>,
    idle: Mutex<BTreeMap<u64, Vec<Box<dyn PeerIo>>>>,
}

impl Forwards {
    pub(crate) fn new(peers: Arc<dyn Peers>) -> Self {
        Self { peers, idle: Mutex::default() }
    }

    /// One question and its answer.
    pub(crate) async fn ask(&self, to: &Member, request: &ForwardRequest) -> Result<ForwardReply, Unsent> {
        let mut stream = match self.take(to.id) {
            Some(stream) => stream,
            None => self.peers.open(to, PeerStream::Forward).await.map_err(|_| Unsent::NotSent)?,
        };
        let end = Instant::now() + FORWARD_DEADLINE;
        let written = tokio::time::timeout_at(end, wire::write(&mut stream, request)).await;
        let reply = match written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => tokio::time::timeout_at(end, answer(&mut stream)).await,
            Err(_) => {
                self.forget(to.id);
                return Err(Unsent::NotSent);
            }
        };
        match reply.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"))) {
            Ok(reply) => {
                self.keep(to.id, stream);
                Ok(reply)
            }
            Err(error) => {
                // The others go the same way.
                self.forget(to.id);
                Err(Unsent::Sent(error.to_string()))
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Vec<Box<dyn PeerIo>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, id: u64) -> Option<Box<dyn PeerIo>> {
        let mut idle = self.idle();
        // Streams to one that led before are of no use any more.
        idle.retain(|kept, _| *kept == id);
        idle.get_mut(&id)?.pop()
    }

    fn keep(&self, id: u64, stream: Box<dyn PeerIo>) {
        let mut idle = self.idle();
        let streams = idle.entry(id).or_default();
        if streams.len() < KEPT {
            streams.push(stream);
        }
    }

    fn forget(&self, id: u64) {
        self.idle().remove(&id);
    }
}

async fn answer(stream: &mut Box<dyn PeerIo>) -> io::Result<ForwardReply> {
    stream.flush().await?;
    wire::expect(stream).await
}
