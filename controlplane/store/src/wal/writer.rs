//! The one who writes the log.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::index::{Index, NEWEST, Place, size_of};
use super::segment::{FOLDER, Record, START, Segment, room_for};
use super::{Done, Ends};
use crate::disk::Disk;
use crate::raft::LogId;
use crate::seal::Keyring;

/// How many bytes of records go into one frame, unless a single request has more.
const FRAME_BYTES: u64 = 4 << 20;

/// After how long without a request it is written how far the log is committed, for which nobody waits. The frame that it makes also shows
/// that the one before it was durable, should that one be damaged later.
pub(super) const IDLE: Duration = Duration::from_millis(50);

/// Records to be written, and who waits for them.
pub(super) struct Request {
    pub records: Vec<Record>,
    pub done: Option<Done>,
}

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    keys: Keyring,
    index: Arc<Mutex<Index>>,
    segment: Arc<Segment>,
    /// Where the next frame goes, and where the segment's room ends.
    next: u64,
    end: u64,
    /// The room that a segment is given, if its first frame needs no more.
    room: u64,
    /// What the next segment's checkpoint says.
    written: Ends,
    /// The index of the last entry that is written, or was purged.
    last: Option<u64>,
    batch: Vec<Record>,
    batch_bytes: u64,
    waiting: Vec<Done>,
}

impl Writer {
    /// Begins a new segment: one that was written before may have a torn end, and its salt is used up.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        keys: Keyring,
        index: Arc<Mutex<Index>>,
        number: u64,
        room: u64,
    ) -> io::Result<Self> {
        let written = index.lock().unwrap_or_else(PoisonError::into_inner).ends();
        let (segment, next) = begin(disk.as_ref(), &keys, number, room, &written)?;
        index.lock().unwrap_or_else(PoisonError::into_inner).add_segment(segment.clone());
        let (batch, waiting) = (Vec::new(), Vec::new());
        let last = written.last.map(|log_id| log_id.index);
        Ok(Self { disk, keys, index, segment, next, end: room, room, written, last, batch, batch_bytes: 0, waiting })
    }

    /// Writes what is asked for until nobody can ask any more, or the disk fails.
    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut is_resting = false;
        loop {
            let request = if is_resting {
                requests.recv().await
            } else if let Ok(request) = tokio::time::timeout(IDLE, requests.recv()).await {
                request
            } else {
                if self.committed(self.last).is_some() && self.flush(&mut requests).await.is_break() {
                    return;
                }
                is_resting = self.rest();
                continue;
            };
            let Some(request) = request else { break };
            is_resting = false;
            self.take(request);
            while self.batch_bytes < FRAME_BYTES
                && let Ok(request) = requests.try_recv()
            {
                self.take(request);
            }
            if !self.waiting.is_empty() && self.flush(&mut requests).await.is_break() {
                return;
            }
        }
        if self.committed(self.last).is_some() {
            let _ = self.flush(&mut requests).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the log is committed, if that is not written yet, and no further than to `last`, the last entry that is written.
    fn committed(&self, last: Option<u64>) -> Option<LogId> {
        let committed = self.lock().committed;
        committed.filter(|committed| self.written.committed != Some(*committed) && Some(committed.index) <= last)
    }

    /// Rests until it is asked for something, if there is nothing to write: whoever notes a commit asks from now on.
    fn rest(&self) -> bool {
        let mut index = self.lock();
        index.is_resting = index.committed == self.written.committed;
        index.is_resting
    }

    fn take(&mut self, request: Request) {
        self.batch_bytes += request.records.iter().map(size).sum::<u64>();
        self.batch.extend(request.records);
        self.waiting.extend(request.done);
    }

    /// Writes and syncs the batch; when that fails, tells so everyone who asks from now on.
    async fn flush(&mut self, requests: &mut mpsc::UnboundedReceiver<Request>) -> std::ops::ControlFlow<()> {
        self.disk.delay().await;
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let written = self.write(batch);
        for done in self.waiting.drain(..) {
            done.tell(written.as_ref().copied().map_err(copy));
        }
        let Err(error) = written else { return std::ops::ControlFlow::Continue(()) };
        tracing::error!(%error, "the log cannot be written any more");
        while let Some(request) = requests.recv().await {
            if let Some(done) = request.done {
                done.tell(Err(copy(&error)));
            }
        }
        std::ops::ControlFlow::Break(())
    }

    fn write(&mut self, mut batch: Vec<Record>) -> io::Result<()> {
        let last = batch.iter().fold(self.last, |last, record| match record {
            Record::Entry(entry) => Some(entry.log_id.index),
            Record::Truncated(next_index) => next_index.checked_sub(1),
            // A snapshot may have brought what never was in the log.
            Record::Purged(purged) => last.max(Some(purged.index)),
            _ => last,
        });
        batch.extend(self.committed(last).map(Record::Committed));
        let room = room_for(batch.iter().map(size).sum());
        if self.next + room > self.end || self.segment.key_id() != self.keys.active() {
            self.roll(room)?;
        }
        let frame = self.next;
        self.next = self.segment.write(frame, &batch)?;
        self.segment.file.sync()?;
        self.last = last;
        let mut purged = None;
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for (nth, record) in batch.into_iter().enumerate() {
            match record {
                Record::Entry(entry) => {
                    index.place(entry.log_id, Place { segment: self.segment.clone(), frame, nth });
                }
                Record::Vote(vote) => self.written.vote = Some(vote),
                Record::Committed(committed) => self.written.committed = Some(committed),
                Record::Purged(log_id) => {
                    self.written.purged = Some(log_id);
                    purged = Some(log_id.index);
                }
                Record::Truncated(_) | Record::Checkpoint { .. } | Record::Closed => {}
            }
        }
        let dropped = purged.map(|purged| index.drop_segments(purged)).unwrap_or_default();
        drop(index);
        for number in dropped {
            self.disk.remove(&Segment::name(number))?;
        }
        Ok(())
    }

    /// Goes on in a new segment, which has room for a frame of `room` bytes.
    fn roll(&mut self, room: u64) -> io::Result<()> {
        // Nothing will follow here: the rest of its room is given back.
        self.segment.file.set_size(self.next)?;
        let size = self.room.max(room + 2 * START + 4096);
        let number = self.segment.number + 1;
        (self.segment, self.next) = begin(self.disk.as_ref(), &self.keys, number, size, &self.written)?;
        self.end = size;
        self.lock().add_segment(self.segment.clone());
        Ok(())
    }
}

/// Makes a segment that says what is known so far, and then notes that there is one.
fn begin(disk: &dyn Disk, keys: &Keyring, number: u64, size: u64, ends: &Ends) -> io::Result<(Arc<Segment>, u64)> {
    let segment = Segment::create(disk, keys, number, size)?;
    let checkpoint = Record::Checkpoint { vote: ends.vote, purged: ends.purged, committed: ends.committed };
    let next = segment.write(START, &[checkpoint])?;
    segment.file.sync()?;
    disk.sync_folder(FOLDER)?;
    crate::disk::replace(disk, NEWEST, format!("{number}\n").as_bytes())?;
    Ok((Arc::new(segment), next))
}

fn size(record: &Record) -> u64 {
    match record {
        Record::Entry(entry) => size_of(entry),
        _ => 64,
    }
}

/// Errors of the system cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
