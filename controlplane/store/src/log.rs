//! The write-ahead log: entries, vote and commit index on disk, through the `raft-log` crate.
//!
//! Everything is written by its one worker, in order, so that a vote is never on disk after an entry that followed it. An entry
//! counts as written when it is on stable storage; a failed sync is fatal, because nobody knows what the disk has then.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use raft_log::Types as _;
use raft_log::api::raft_log_writer::RaftLogWriter;
use tokio::sync::oneshot;

use crate::raft::{Entry, LogId, Payload, Types, Vote};
use crate::record::Record;

/// How many bytes of entries go to a follower at once, unless a single one is larger: far below the largest frame.
const BATCH_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = Record<LogId>;
    type LogPayload = Record<Payload>;
    type Vote = Record<Vote>;
    type Callback = Flushed;
    type UserData = String;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.0.index
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        match &payload.0 {
            openraft::EntryPayload::Normal(proposal) => proposal.0.len() as u64,
            _ => 256,
        }
    }
}

/// Who is told that a flush is done.
enum Flushed {
    Raft(IOFlushed<Types>),
    Waiting(oneshot::Sender<io::Result<()>>),
}

impl raft_log::Callback for Flushed {
    fn send(self, result: Result<(), io::Error>) {
        match self {
            Self::Raft(callback) => callback.io_completed(result),
            // Nobody waits any more when the store is being closed.
            Self::Waiting(sender) => drop(sender.send(result)),
        }
    }
}

/// The log of one server. Clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    log: Arc<RwLock<raft_log::RaftLog<LogTypes>>>,
}

impl Log {
    /// Opens the log in `directory`, which is locked against a second process. A record that was being written when the
    /// power went is cut off; anything else that is damaged is an error.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut config = raft_log::Config::new(directory.to_string_lossy());
        config.wal.flush_batch_wait = Some(Duration::ZERO);
        config.wal.chunk_max_size = Some(64 << 20);
        config.wal.read_buffer_size = Some(1 << 20);
        config.wal.truncate_incomplete_record = Some(true);
        config.log_cache_capacity = Some(32 << 20);
        let log = raft_log::RaftLog::open(Arc::new(config))?;
        Ok(Self { log: Arc::new(RwLock::new(log)) })
    }

    fn read(&self) -> RwLockReadGuard<'_, raft_log::RaftLog<LogTypes>> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, raft_log::RaftLog<LogTypes>> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes with `change`, and waits until it is on stable storage.
    async fn durably(
        &self,
        change: impl FnOnce(&mut raft_log::RaftLog<LogTypes>) -> io::Result<()> + Send,
    ) -> io::Result<()> {
        let (sender, flushed) = oneshot::channel();
        {
            let mut log = self.write();
            change(&mut log)?;
            log.flush(true, Some(Flushed::Waiting(sender)))?;
        }
        flushed.await.map_err(|_| io::Error::other("the log's writer is gone"))?
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let log = self.read();
        log.read(start, end)
            .map(|read| read.map(|(log_id, payload)| Entry { log_id: log_id.0, payload: payload.0 }))
            .collect()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let log = self.read();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for read in log.read(start, end) {
            let (log_id, payload) = read?;
            bytes += LogTypes::payload_size(&payload);
            // The first one is always sent, or replication would stand still.
            if bytes > BATCH_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(Entry { log_id: log_id.0, payload: payload.0 });
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read().log_state().vote().map(|vote| vote.0))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let log = self.read();
        let state = log.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().map(|log_id| log_id.0),
            last_log_id: state.last().map(|log_id| log_id.0),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = Record(*vote);
        self.durably(|log| log.save_vote(vote).map(drop)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        let mut log = self.write();
        log.commit(Record(committed))?;
        // It only spares work after a restart, so it goes to disk with the next entry.
        log.flush(false, None)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read().log_state().committed().map(|log_id| log_id.0))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.write();
        log.append(entries.into_iter().map(|entry| (Record(entry.log_id), Record(entry.payload))))?;
        log.flush(true, Some(Flushed::Raft(callback)))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first = last.map_or(0, |log_id| log_id.index + 1);
        self.durably(|log| log.truncate(first).map(drop)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.durably(|log| log.purge(Record(log_id)).map(drop)).await
    }
}
