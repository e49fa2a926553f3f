//! The write-ahead log as Raft uses it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use crate::raft::{Entry, LogId, Types, Vote};
use crate::wal::Wal;

/// How many bytes of entries go to a follower at once, unless a single one is larger: far below the largest frame.
const BATCH_BYTES: u64 = 4 << 20;

impl RaftLogReader<Types> for Wal {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let last = match range.end_bound() {
            Bound::Included(last) => Some(*last),
            Bound::Excluded(end) => end.checked_sub(1),
            Bound::Unbounded => Some(u64::MAX),
        };
        last.map_or(Ok(Vec::new()), |last| self.read(start..=last, u64::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        end.checked_sub(1).map_or(Ok(Vec::new()), |last| self.read(start..=last, BATCH_BYTES))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.ends().vote)
    }
}

impl RaftLogStorage<Types> for Wal {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let ends = self.ends();
        Ok(LogState { last_purged_log_id: ends.purged, last_log_id: ends.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Self::save_vote(self, *vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        committed.map_or(Ok(()), |committed| Self::save_committed(self, committed))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.ends().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Self::append(self, entries.into_iter().collect(), callback)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.truncate(last.map_or(0, |log_id| log_id.index + 1)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        Self::purge(self, log_id).await
    }
}
