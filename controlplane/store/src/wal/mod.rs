//! The write-ahead log: entries, vote and commit index, in segments that are written by one task, in order.
//!
//! What is asked for is in the index at once, where readers find it, and told to be durable when its frame was synced. Whatever
//! waits while a sync is under way goes into the next frame together. A write or a sync that fails is the end: nobody knows what
//! the disk has then.

mod index;
mod segment;
mod writer;

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use crate::config::Capacity;
use crate::disk::Disk;
use crate::raft::{Entry, LogId, Types, Vote};
use crate::seal::Keyring;
use index::Index;
pub(crate) use segment::FOLDER;
use segment::Record;
use writer::{Request, Writer};

/// For `tests/fuzz`.
#[cfg(feature = "simulation")]
pub(crate) mod fuzzing {
    pub(crate) use super::segment::{Record, START, Segment};
}

/// Who is told that something is durable.
pub(super) enum Done {
    Raft(IOFlushed<Types>),
    Waiting(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Raft(callback) => callback.io_completed(result),
            // Nobody waits any more when the store is being closed.
            Self::Waiting(sender) => drop(sender.send(result)),
        }
    }
}

/// The log of one server. Clones are the same log.
#[derive(Clone)]
pub(crate) struct Wal {
    index: Arc<Mutex<Index>>,
    requests: mpsc::UnboundedSender<Request>,
}

/// What the disk knows of the log's beginning and end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ends {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
}

impl Wal {
    /// Opens the log on `disk`. A frame that was being written when the power went is cut off; anything else that is damaged or
    /// missing is an error that names the file. The future must run for as long as the log is used: it writes.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        keys: Keyring,
        capacity: Capacity,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let (index, number) = index::load(disk.as_ref(), &keys, capacity.cached_log_bytes)?;
        let index = Arc::new(Mutex::new(index));
        let (requests, waiting) = mpsc::unbounded_channel();
        let writer = Writer::new(disk, keys, index.clone(), number, capacity.segment_bytes)?;
        Ok((Self { index, requests }, writer.run(waiting)))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for `records` to be written; the caller holds the index, so that the order is the index's.
    fn ask(&self, records: Vec<Record>, done: Option<Done>) -> io::Result<()> {
        self.requests.send(Request { records, done }).map_err(|_| writer_is_gone())
    }

    /// Changes the index by `change`, and waits until `records` are durable.
    async fn durably(&self, record: Record, change: impl FnOnce(&mut Index)) -> io::Result<()> {
        let (sender, done) = oneshot::channel();
        {
            let mut index = self.lock();
            change(&mut index);
            self.ask(vec![record], Some(Done::Waiting(sender)))?;
        }
        done.await.map_err(|_| writer_is_gone())?
    }

    pub(crate) fn ends(&self) -> Ends {
        self.lock().ends()
    }

    /// Adds entries; they can be read when this returns, and are durable when `done` is told so.
    pub(crate) fn append(&self, entries: Vec<Entry>, done: IOFlushed<Types>) -> io::Result<()> {
        let mut index = self.lock();
        index.append(&entries)?;
        self.ask(entries.into_iter().map(Record::Entry).collect(), Some(Done::Raft(done)))
    }

    pub(crate) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.durably(Record::Vote(vote), |index| index.vote = Some(vote)).await
    }

    /// Takes the entries from `next_index` on away.
    pub(crate) async fn truncate(&self, next_index: u64) -> io::Result<()> {
        self.durably(Record::Truncated(next_index), |index| index.truncate(next_index)).await
    }

    /// Takes the entries up to `purged` away.
    pub(crate) async fn purge(&self, purged: LogId) -> io::Result<()> {
        self.durably(Record::Purged(purged), |index| index.purge(purged)).await
    }

    /// Notes how far the log is committed. It only spares work after a restart, so it goes to disk with the next frame, and the writer
    /// is not woken for it unless it has been idle for a while.
    pub(crate) fn save_committed(&self, committed: LogId) -> io::Result<()> {
        let mut index = self.lock();
        index.committed = Some(committed);
        if std::mem::take(&mut index.is_resting) { self.ask(Vec::new(), None) } else { Ok(()) }
    }

    /// Ends the log with a frame that says so, so that damage to what stands before it can be told from a torn write.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.durably(Record::Closed, |_| {}).await
    }

    /// The entries with these indices, as many as there are one after the other, and no more than about `bytes`, but one at least.
    pub(crate) fn read(&self, indices: RangeInclusive<u64>, bytes: u64) -> io::Result<Vec<Entry>> {
        let found = self.lock().find(indices, bytes);
        index::resolve(found)
    }

    /// How many bytes the entries in the log have.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// The ids of the keys with which the segments are sealed.
    pub(crate) fn key_ids(&self) -> Vec<u32> {
        self.lock().key_ids()
    }
}

fn writer_is_gone() -> io::Error {
    io::Error::other("the log's writer has ended")
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId as _;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::disk::Folder;

    fn vote() -> Vote {
        Vote::new(1, 1)
    }

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: vote().leader_id.to_committed(), index }
    }

    fn open(folder: &std::path::Path) -> (Wal, JoinHandle<()>) {
        let keys = Keyring::parse(&format!(r#"{{"version":1,"active":1,"keys":{{"1":"{}"}}}}"#, "07".repeat(32)));
        let disk = Arc::new(Folder::open(folder).expect("a disk"));
        let (wal, writer) = Wal::open(disk, keys.expect("a ring"), Capacity::default()).expect("a log");
        (wal, tokio::spawn(writer))
    }

    /// Appends an entry, and waits until it is durable.
    async fn append(wal: &Wal, index: u64) {
        let entry = Entry { log_id: log_id(index), payload: EntryPayload::Blank };
        wal.append(vec![entry], IOFlushed::noop()).expect("appended");
        wal.save_vote(vote()).await.expect("durable");
    }

    /// Waits until the writer has nothing more to write.
    async fn rested(wal: &Wal) {
        while !wal.lock().is_resting {
            tokio::time::sleep(writer::IDLE / 10).await;
        }
    }

    /// What another process finds after this one was killed.
    async fn killed(wal: Wal, writer: JoinHandle<()>, folder: &std::path::Path) -> Option<LogId> {
        writer.abort();
        assert!(writer.await.is_err_and(|error| error.is_cancelled()));
        drop(wal);
        let (wal, writer) = open(folder);
        let committed = wal.ends().committed;
        writer.abort();
        let _ = writer.await;
        committed
    }

    #[tokio::test]
    async fn how_far_it_is_committed_goes_with_the_next_frame_or_is_written_a_moment_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let (wal, writer) = open(folder.path());
        append(&wal, 0).await;
        wal.save_committed(log_id(0)).expect("noted");
        append(&wal, 1).await;
        assert_eq!(killed(wal, writer, folder.path()).await, Some(log_id(0)));
        let (wal, writer) = open(folder.path());
        wal.save_committed(log_id(1)).expect("noted");
        rested(&wal).await;
        assert_eq!(killed(wal, writer, folder.path()).await, Some(log_id(1)));
    }

    #[tokio::test]
    async fn a_writer_that_rests_is_woken() {
        let folder = tempfile::tempdir().expect("a folder");
        let (wal, writer) = open(folder.path());
        append(&wal, 0).await;
        append(&wal, 1).await;
        for index in [0, 1] {
            rested(&wal).await;
            wal.save_committed(log_id(index)).expect("noted");
        }
        rested(&wal).await;
        assert_eq!(killed(wal, writer, folder.path()).await, Some(log_id(1)));
    }

    #[tokio::test]
    async fn nothing_is_said_to_be_committed_before_it_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (wal, writer) = open(folder.path());
        append(&wal, 0).await;
        // As when an entry comes with the news that it is committed, and is still on its way to the writer.
        wal.save_committed(log_id(1)).expect("noted");
        tokio::time::sleep(writer::IDLE * 3).await;
        assert!(!wal.lock().is_resting);
        assert_eq!(killed(wal, writer, folder.path()).await, None);
    }

    #[tokio::test]
    async fn what_a_snapshot_brought_is_committed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (wal, writer) = open(folder.path());
        append(&wal, 0).await;
        wal.save_committed(log_id(7)).expect("noted");
        wal.purge(log_id(7)).await.expect("purged");
        rested(&wal).await;
        assert_eq!(killed(wal, writer, folder.path()).await, Some(log_id(7)));
    }
}
