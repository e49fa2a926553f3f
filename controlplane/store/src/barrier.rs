//! Linearizable reads, many at the price of one: whoever comes while a question is on its way shares the next one.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

use crate::error::ReadError;

/// How many readers may wait for one answer.
const WAITING: usize = 65_536;

type Answer = Result<u64, ReadError>;

/// The readers' end.
#[derive(Clone)]
pub(crate) struct Barrier {
    readers: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl Barrier {
    /// The barrier, and the loop that must run for it: it asks `ask` for a read index again and again, one at a time.
    pub(crate) fn new<F, R>(ask: F) -> (Self, impl Future<Output = ()> + Send)
    where
        F: Fn() -> R + Send,
        R: Future<Output = Answer> + Send,
    {
        let (readers, mut waiting) = mpsc::channel::<oneshot::Sender<Answer>>(WAITING);
        let run = async move {
            let mut batch = Vec::new();
            // A reader must not be answered by a question that was asked before it came: so drain, then ask.
            while waiting.recv_many(&mut batch, WAITING).await > 0 {
                let answer = ask().await;
                for reader in batch.drain(..) {
                    // A reader that gave up does not listen.
                    let _ = reader.send(answer.clone());
                }
            }
        };
        (Self { readers }, run)
    }

    /// One more than the log index that a read, begun now, must have applied.
    pub(crate) async fn read_index(&self) -> Answer {
        let (sender, answer) = oneshot::channel();
        self.readers.send(sender).await.map_err(|_| ReadError::Unavailable)?;
        answer.await.unwrap_or(Err(ReadError::Unavailable))
    }
}
