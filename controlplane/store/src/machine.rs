//! Applying the log: the state that readers share, the watchers, and the snapshots that Raft asks for.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use shoal_state::{Change, Command, Outcome, Revision, State, View};
use tokio::sync::watch;

use crate::error::{Compacted, OpenError};
use crate::raft::{LogId, Proposal, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::snapshot::Snapshots;
use crate::watch::{Watch, Watcher};

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
}

struct Inner {
    state: State,
    watchers: Vec<Watcher>,
    closed: bool,
}

impl Shared {
    fn new(state: State, next_index: u64) -> Arc<Self> {
        let (applied, _) = watch::channel(Applied { next_index, revision: state.revision() });
        Arc::new(Self { inner: Mutex::new(Inner { state, watchers: Vec::new(), closed: false }), applied })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> View {
        self.lock().state.view()
    }

    pub(crate) fn view_at(&self, revision: Revision) -> Option<View> {
        // Undoing history can take a while: it is done on a clone, outside the lock.
        let state = self.lock().state.clone();
        state.view_at(revision)
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
        let mut inner = self.lock();
        let (outcome, changes) = inner.state.apply(command);
        if !changes.is_empty() {
            let changes: Arc<[Change]> = changes.into();
            inner.watchers.retain(|watcher| watcher.tell(&changes));
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
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The state as the newest snapshot has it; Raft brings the rest from the log.
    pub(crate) fn open(snapshots: Snapshots) -> Result<(Self, Arc<Shared>), OpenError> {
        let (meta, state) = match snapshots.load()? {
            None => (SnapshotMeta::default(), State::new()),
            Some((meta, bytes)) => {
                let damaged = |error: shoal_state::FormatError| OpenError::Snapshot {
                    path: snapshots.directory().to_path_buf(),
                    reason: error.to_string(),
                };
                let state = State::decode(&bytes).map_err(damaged)?;
                (meta, state)
            }
        };
        let shared = Shared::new(state, next_index(meta.last_log_id));
        let machine = Self {
            shared: shared.clone(),
            snapshots,
            last_applied: meta.last_log_id,
            membership: meta.last_membership,
        };
        Ok((machine, shared))
    }
}

fn next_index(last: Option<LogId>) -> u64 {
    last.map_or(0, |log_id| log_id.index + 1)
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
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
            // Before the answer: who was told of its write must find it.
            self.shared.publish(next_index(self.last_applied));
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.shared.lock().state.clone(),
            meta: SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() },
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let (snapshots, own_meta) = (self.snapshots.clone(), meta.clone());
        let state = blocking(move || {
            let state = State::decode(&snapshot).map_err(io::Error::other)?;
            snapshots.save(&own_meta, &snapshot)?;
            Ok(state)
        })
        .await?;
        {
            let mut inner = self.shared.lock();
            inner.state = state;
            // What happened between their last change and the snapshot is not known: they must list again.
            inner.watchers.clear();
        }
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.shared.publish(next_index(self.last_applied));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        let loaded = blocking(move || snapshots.load().map_err(io::Error::other)).await?;
        Ok(loaded.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Makes one snapshot from a clone of the state.
pub(crate) struct Builder {
    state: State,
    meta: SnapshotMeta,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (state, meta, snapshots) = (self.state.clone(), self.meta.clone(), self.snapshots.clone());
        blocking(move || {
            let bytes = state.encode();
            snapshots.save(&meta, &bytes)?;
            Ok(Snapshot { meta, snapshot: bytes.into() })
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
