//! Applying the log: the state that readers share, the watchers, and the snapshots that Raft asks for.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use shoal_state::{Change, Command, Image, LookBack, Outcome, Revision, State, UnixSeconds, View};
use tokio::sync::{Notify, watch};

use crate::config::Capacity;
use crate::error::{Compacted, OpenError};
use crate::raft::{LogId, Proposal, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::snapshot::Snapshots;
use crate::watch::{Watch, Watcher};

/// The feature level that this program knows: what it may be told to write, and can read. Raised with the first release that
/// writes something which the one before cannot read.
pub const FEATURE_LEVEL: u32 = 1;

/// After how many entries at most those who wait are told. Each time wakes all of them.
const TOGETHER: u32 = 64;

/// How far this server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The index of the last log entry, and one more, so that 0 is none.
    pub next_index: u64,
    /// The state's revision.
    pub revision: Revision,
}

/// What the state machine and its readers share.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    applied: watch::Sender<Applied>,
    capacity: Capacity,
    snapshot_due: Notify,
    /// Whether Raft has taken over what is on disk.
    begun: AtomicBool,
}

struct Inner {
    state: State,
    watchers: Vec<Watcher>,
    grown: Grown,
    closed: bool,
}

/// What was applied since the last snapshot, and how large the state was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grown {
    entries: u64,
    bytes: u64,
    from: u64,
}

impl Grown {
    /// Nothing, since a state of `size` bytes.
    fn since(size: u64) -> Self {
        Self { entries: 0, bytes: 0, from: size }
    }

    /// Whether it is worth a snapshot. That is the whole state: were it made after so many entries, however large it is, most of what a
    /// server with much state writes would be snapshots. So as much as the last one had is written to the log before.
    fn is_enough(self, capacity: &Capacity) -> bool {
        self.entries >= capacity.snapshot_entries && self.bytes >= self.from.min(capacity.log_bytes / 2)
    }
}

impl Shared {
    fn new(state: State, next_index: u64, capacity: Capacity) -> Arc<Self> {
        let (applied, _) = watch::channel(Applied { next_index, revision: state.revision() });
        Arc::new(Self {
            inner: Mutex::new(Inner { grown: Grown::since(state.size()), state, watchers: Vec::new(), closed: false }),
            applied,
            capacity,
            snapshot_due: Notify::new(),
            begun: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that Raft has taken over what is on disk.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub(crate) fn view(&self) -> View {
        self.lock().state.view()
    }

    /// Everything that is replicated, as it is now.
    pub(crate) fn image(&self) -> Image {
        self.lock().state.image()
    }

    /// The size of all keys and values, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.lock().state.size()
    }

    pub(crate) fn feature_level(&self) -> u32 {
        self.lock().state.feature_level()
    }

    /// Returns when there is enough for a snapshot, once for each.
    pub(crate) async fn snapshot_due(&self) {
        self.snapshot_due.notified().await;
    }

    /// Whether keys are to be taken away because their time is up.
    pub(crate) fn has_expired(&self, now: UnixSeconds) -> bool {
        self.lock().state.has_expired(now)
    }

    pub(crate) fn view_at(&self, revision: Revision) -> Option<View> {
        // Outside the lock, and without a copy of the whole history, which every page of every list would pay for.
        let back = self.lock().state.look_back(revision);
        back.map(LookBack::view)
    }

    pub(crate) fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Watch, Compacted> {
        let mut inner = self.lock();
        let Some(changes) = inner.state.changes_after(after, prefix) else {
            return Err(Compacted(inner.state.view().compacted()));
        };
        let (watch, watcher) = Watch::new(prefix, after, changes.cloned().collect(), self);
        inner.watchers.push(watcher);
        Ok(watch)
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// The revision, if `quiet` holds while nothing is applied.
    pub(crate) fn revision_if(&self, quiet: impl FnOnce() -> bool) -> Option<Revision> {
        let inner = self.lock();
        quiet().then(|| inner.state.revision())
    }

    /// Lets all watchers go.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.watchers.clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn apply(&self, proposal: &Proposal) -> io::Result<Outcome> {
        let command = Command::decode(&proposal.0)
            .map_err(|error| io::Error::other(format!("a log entry cannot be applied: {error}")))?;
        if let Command::RaiseFeatureLevel { level } = command {
            check_feature_level(level).map_err(io::Error::other)?;
        }
        let mut inner = self.lock();
        let (outcome, changes) = inner.state.apply(command);
        if !changes.is_empty() {
            let changes: Arc<[Change]> = changes.into();
            inner.watchers.retain(|watcher| watcher.tell(&changes));
        }
        inner.grown.entries += 1;
        inner.grown.bytes += proposal.0.len() as u64;
        if inner.grown.is_enough(&self.capacity) {
            // If the snapshot cannot be made it is tried again after as much.
            inner.grown = Grown::since(inner.state.size());
            self.snapshot_due.notify_one();
        }
        Ok(outcome)
    }

    /// Tells those who wait how far this server is.
    fn publish(&self, next_index: u64) {
        let revision = self.lock().state.revision();
        self.applied.send_replace(Applied { next_index, revision });
    }
}

/// Raft's side of the state.
pub(crate) struct Machine {
    shared: Arc<Shared>,
    snapshots: Snapshots,
    /// The snapshot on disk, while Raft starts.
    loaded: Option<Snapshot>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The state as the newest snapshot has it; Raft brings the rest from the log.
    pub(crate) fn open(snapshots: Snapshots, capacity: Capacity) -> Result<(Self, Arc<Shared>), OpenError> {
        let loaded = snapshots.load()?.map(|(meta, snapshot)| Snapshot { meta, snapshot });
        let (meta, image) = loaded.clone().map(|loaded| (loaded.meta, loaded.snapshot)).unwrap_or_default();
        check_feature_level(image.feature_level()).map_err(OpenError::Raft)?;
        let shared = Shared::new(State::of(image).keeping(capacity.history), next_index(meta.last_log_id), capacity);
        let machine = Self {
            shared: shared.clone(),
            snapshots,
            loaded,
            last_applied: meta.last_log_id,
            membership: meta.last_membership,
        };
        Ok((machine, shared))
    }

    /// Says how far this server is, then answers: who was told of its write must find it.
    fn answer(&self, answers: &mut Vec<(ApplyResponder<Types>, Outcome)>) {
        self.shared.publish(next_index(self.last_applied));
        for (responder, outcome) in answers.drain(..) {
            responder.send(outcome);
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() }
    }
}

fn check_feature_level(level: u32) -> Result<(), String> {
    if level <= FEATURE_LEVEL {
        return Ok(());
    }
    Err(format!(
        "the cluster writes feature level {level}, and this program knows {FEATURE_LEVEL}: use the version of Shoal that the other servers have"
    ))
}

fn next_index(last: Option<LogId>) -> u64 {
    last.map_or(0, |log_id| log_id.index + 1)
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut answers, mut applied) = (Vec::new(), 0);
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let outcome = match entry.payload {
                EntryPayload::Blank => Outcome::Committed { revision: self.shared.view().revision() },
                EntryPayload::Normal(proposal) => self.shared.apply(&proposal)?,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Outcome::Committed { revision: self.shared.view().revision() }
                }
            };
            self.last_applied = Some(entry.log_id);
            if let Some(responder) = responder {
                answers.push((responder, outcome));
            }
            applied += 1;
            if applied % TOGETHER == 0 {
                self.answer(&mut answers);
            }
        }
        self.answer(&mut answers);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { image: self.shared.image(), meta: self.meta(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Image) -> Result<(), io::Error> {
        check_feature_level(snapshot.feature_level()).map_err(io::Error::other)?;
        let (snapshots, own_meta, image) = (self.snapshots.clone(), meta.clone(), snapshot.clone());
        snapshots.blocking(move |snapshots| snapshots.save(&own_meta, image)).await?;
        {
            let mut inner = self.shared.lock();
            inner.state = State::of(snapshot).keeping(self.shared.capacity.history);
            inner.grown = Grown::since(inner.state.size());
            // What happened between their last change and the snapshot is not known: they must list again.
            inner.watchers.clear();
        }
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.shared.publish(next_index(self.last_applied));
        Ok(())
    }

    /// While Raft starts, the snapshot on disk: what it is told here it takes for durable. Later, what a follower is sent: the
    /// state as it is now, which costs nothing to take, and from which the log goes on.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.shared.begun.load(Ordering::Acquire) {
            return Ok(self.loaded.clone());
        }
        self.loaded = None;
        Ok(self.last_applied.map(|_| Snapshot { meta: self.meta(), snapshot: self.shared.image() }))
    }
}

/// Makes one snapshot from a clone of the state.
pub(crate) struct Builder {
    image: Image,
    meta: SnapshotMeta,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (image, meta) = (self.image.clone(), self.meta.clone());
        self.snapshots.blocking(move |snapshots| snapshots.save(&meta, image)).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: self.image.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_worth_it_when_as_much_was_written_as_the_last_one_had() {
        let capacity = Capacity { snapshot_entries: 10, log_bytes: 2_000, ..Capacity::default() };
        let grown = |entries, bytes, from| Grown { entries, bytes, from };
        assert!(grown(10, 100, 100).is_enough(&capacity));
        assert!(!grown(9, 100, 100).is_enough(&capacity), "a few entries are read again soon");
        assert!(!grown(10, 99, 100).is_enough(&capacity));
        assert!(grown(10, 1_000, u64::MAX).is_enough(&capacity), "the log has its limit");
        assert!(grown(10, 0, 0).is_enough(&capacity));
    }
}
