//! The store as the rest of the server sees it: any server commits, reads and watches; the leader decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use shoal_state::{Command, Image, Outcome, Revision, Transaction, View};
use tokio::sync::watch;

use crate::barrier::Barrier;
use crate::config::{Config, Member, MemberStatus, PeerIo, PeerStream, Peers};
use crate::disk::Disk;
use crate::error::{CommitError, Compacted, MembershipError, OpenError, ReadError};
use crate::leader::{LEADER_DEADLINE, Leader};
use crate::random::seeded;
use crate::seal::Keyring;
use crate::snapshot::Snapshots;
use crate::start::Threads;
use crate::wal::Wal;
use crate::watch::Watch;
use crate::wire::ForwardRequest;
use crate::{keeper, peer, start};

/// How long Raft's threads may take to end when the store is closed.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// A transaction that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The state's revision after it.
    pub revision: Revision,
}

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<Arc<Member>>,
    /// Whether it is this server.
    pub is_self: bool,
    /// Raft's term.
    pub term: u64,
}

/// The replicated store. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    parts: Arc<Parts>,
    failure: watch::Receiver<Option<String>>,
}

pub(crate) struct Parts {
    pub leader: Leader,
    pub barrier: Barrier,
    pub wal: Wal,
    pub snapshots: Snapshots,
    pub keys: Keyring,
    pub disk: Arc<dyn Disk>,
    pub threads: Arc<Threads>,
    pub owns_threads: bool,
}

impl Store {
    /// Opens what is on the disk and starts Raft. An empty disk is an empty store that waits to be initialized or added.
    ///
    /// # Errors
    /// [`OpenError`]; it names the file.
    pub async fn open(config: Config, peers: Arc<dyn Peers>) -> Result<Self, OpenError> {
        start::open(config, peers).await
    }

    pub(crate) fn new(parts: Parts, failure: watch::Receiver<Option<String>>) -> Self {
        Self { parts: Arc::new(parts), failure }
    }

    fn leader(&self) -> &Leader {
        &self.parts.leader
    }

    /// Makes this server the first and only one of a new cluster; does nothing when it is a member of one.
    ///
    /// # Errors
    /// When the disk fails, or the server does not come to lead in time.
    pub async fn initialize(&self) -> Result<(), MembershipError> {
        let refused = |error: String| MembershipError::Refused(error);
        let raft = self.leader().raft();
        if raft.is_initialized().await.map_err(|error| refused(error.to_string()))? {
            return Ok(());
        }
        let members: BTreeMap<u64, Member> = [(self.own().id, self.own().clone())].into();
        raft.initialize(members).await.map_err(|error| refused(error.to_string()))?;
        // The first server's own id counts as given.
        self.leader().propose(&Command::AllocateMember).await.map_err(|_| MembershipError::Unavailable).map(drop)
    }

    /// Whether this server is a member of a cluster, as far as its disk knows.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn is_initialized(&self) -> Result<bool, ReadError> {
        self.leader().raft().is_initialized().await.map_err(|_| ReadError::Unavailable)
    }

    /// A member id that was never given before, from the log.
    ///
    /// # Errors
    /// [`MembershipError::Unavailable`].
    pub async fn allocate_member_id(&self) -> Result<u64, MembershipError> {
        loop {
            match self.leader().propose(&Command::AllocateMember).await {
                // A first server that was killed while it was initialized has an id that the log does not know of.
                Ok(Outcome::Member(id)) if self.members().iter().any(|member| member.id == id) => {}
                Ok(Outcome::Member(id)) => return Ok(id),
                Ok(other) => return Err(MembershipError::Refused(format!("the store answered {other:?}"))),
                Err(_) => return Err(MembershipError::Unavailable),
            }
        }
    }

    /// Adds a server: it learns first, and votes once it has caught up. One of the same name and another id is replaced by it in
    /// the same step. Any server may be asked; one change at a time.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn add_member(&self, member: Member) -> Result<(), MembershipError> {
        self.leader().change(&ForwardRequest::AddMember(member)).await.map(drop)
    }

    /// Takes a server away; the leader too, which hands leadership on first. Any server may be asked.
    ///
    /// # Errors
    /// [`MembershipError::Refused`] also when the servers that would be left could not go on.
    pub async fn remove_member(&self, id: u64) -> Result<(), MembershipError> {
        self.leader().change(&ForwardRequest::RemoveMember(id)).await.map(drop)
    }

    /// Has the server with this id lead, or any other than the one that does.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), MembershipError> {
        self.leader().change(&ForwardRequest::TransferLeader(to)).await.map(drop)
    }

    /// The servers and how they do, as the leader knows.
    ///
    /// # Errors
    /// [`MembershipError::Unavailable`].
    pub async fn member_statuses(&self) -> Result<Vec<MemberStatus>, MembershipError> {
        Ok(self.leader().change(&ForwardRequest::Members).await?.unwrap_or_default())
    }

    /// Serves a stream that another server's store opened, until it ends.
    pub async fn serve_peer(&self, kind: PeerStream, stream: Box<dyn PeerIo>) {
        if self.leader().is_over() {
            return;
        }
        let leader = self.leader().clone();
        // On Raft's own threads, so that whoever is busy here does not delay a heartbeat.
        let serve = async move { peer::serve(leader.raft(), &leader, kind, stream).await };
        // It is only cancelled when the store is closed.
        let _ = self.parts.threads.handle().spawn(seeded(serve)).await;
    }

    /// Carries out a transaction: when this answers, it is on the disks of a majority.
    ///
    /// Not cancel safe in the sense that a dropped call may have been carried out.
    ///
    /// # Errors
    /// [`CommitError`]: only `Unknown` leaves open whether it was carried out.
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        // Before it is proposed: what is too large must not reach the log.
        transaction.check_size().map_err(|message| CommitError::TooLarge { message })?;
        match self.leader().propose(&Command::Transaction(transaction)).await? {
            Outcome::Committed { revision } => Ok(Committed { revision }),
            Outcome::Failed { precondition, current } => {
                Err(CommitError::PreconditionFailed { index: precondition, current })
            }
            Outcome::TooLarge(message) => Err(CommitError::TooLarge { message }),
            Outcome::Full { size } => Err(CommitError::Full { size }),
            Outcome::Member(_) => {
                Err(CommitError::Unknown { reason: "the store answered another question".to_string() })
            }
        }
    }

    /// Waits until this server has everything that was acknowledged anywhere before the call; answers its revision then.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    pub async fn read_barrier(&self) -> Result<Revision, ReadError> {
        let next_index = self.parts.barrier.read_index().await?;
        let mut applied = self.leader().shared().applied();
        let reached =
            tokio::time::timeout(LEADER_DEADLINE, applied.wait_for(|applied| applied.next_index >= next_index)).await;
        let applied = reached.map_err(|_| ReadError::Unavailable)?.map_err(|_| ReadError::Unavailable)?;
        Ok(applied.revision)
    }

    /// Waits until this server is at `revision` or later.
    ///
    /// # Errors
    /// [`ReadError::Behind`] after `deadline`.
    pub async fn wait_for(&self, revision: Revision, deadline: Duration) -> Result<(), ReadError> {
        let mut applied = self.leader().shared().applied();
        let reached = tokio::time::timeout(deadline, applied.wait_for(|applied| applied.revision >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ReadError::Behind { wanted: revision, have: self.view().revision() }),
        }
    }

    /// What this server has now.
    pub fn view(&self) -> View {
        self.leader().shared().view()
    }

    /// What this server had at `revision`; `None` when its history does not reach back to it, or it is to come.
    pub fn view_at(&self, revision: Revision) -> Option<View> {
        self.leader().shared().view_at(revision)
    }

    /// Everything that is replicated, as this server has it now: what a backup holds.
    pub fn image(&self) -> Image {
        self.leader().shared().image()
    }

    /// The changes after `after` of all keys that begin with `prefix`.
    ///
    /// # Errors
    /// [`Compacted`] when this server's history does not reach back so far.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Compacted> {
        self.leader().shared().watch(prefix, after)
    }

    /// Who leads, as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leader().leadership()
    }

    /// Ends when the store can no longer go on, such as after a failed write to disk; answers why. The process must end then.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        let reason = failure.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The store was shut down, which is no failure.
            None => std::future::pending().await,
        }
    }

    /// The servers of the cluster, learners included, by id.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.leader().raft().metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        membership.nodes().map(|(_, member)| member.clone()).collect()
    }

    /// This server.
    pub fn own(&self) -> &Member {
        self.leader().own()
    }

    /// What may be written; see [`Command::RaiseFeatureLevel`].
    pub fn feature_level(&self) -> u32 {
        self.leader().shared().feature_level()
    }

    /// Lets the cluster write what `level` brought. All servers must know it; it cannot be taken back.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn raise_feature_level(&self, level: u32) -> Result<(), CommitError> {
        self.leader().propose(&Command::RaiseFeatureLevel { level }).await.map(drop)
    }

    /// The keys with which this server seals its files.
    pub fn keys(&self) -> &Keyring {
        &self.parts.keys
    }

    /// Whether no file of this server needs another key than the active one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn is_sealed_with_active_key(&self) -> std::io::Result<bool> {
        let active = self.parts.keys.active();
        let snapshots = self.parts.snapshots.key_ids()?;
        Ok(self.parts.wal.key_ids().into_iter().chain(snapshots).all(|id| id == active))
    }

    /// Writes all of this server's files anew with the active key, and answers when no file is left that needs an older one.
    ///
    /// # Errors
    /// The reason, when the disk or Raft refuses.
    pub async fn reseal(&self) -> Result<(), String> {
        while !self.is_sealed_with_active_key().map_err(|error| error.to_string())? {
            // Nothing is purged before something was applied since the last snapshot: this changes nothing, and is something.
            let nothing = Command::RaiseFeatureLevel { level: self.feature_level() };
            self.leader().propose(&nothing).await.map_err(|error| error.to_string())?;
            self.read_barrier().await.map_err(|error| error.to_string())?;
            keeper::make_snapshot(self.leader()).await?;
        }
        Ok(())
    }

    /// Stops Raft and closes the files; watches end.
    pub async fn shutdown(&self) {
        // It fails only when it is over already.
        let _ = self.leader().raft().shutdown().await;
        if !self.leader().is_over() {
            let _ = self.parts.wal.close().await;
        }
        self.leader().shared().close();
        if self.parts.owns_threads {
            self.parts.threads.end(CLOSE_DEADLINE).await;
        }
        self.parts.disk.close();
    }
}
