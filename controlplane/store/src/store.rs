//! The store as the rest of the server sees it: any server commits, reads and watches; the leader decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ReadPolicy;
use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use openraft::{ChangeMembers, ServerState, SnapshotPolicy};
use shoal_state::{Command, Outcome, Revision, Transaction, View};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::barrier::Barrier;
use crate::config::{Config, Member, PeerIo, PeerStream, Peers, Timing};
use crate::error::{CommitError, Compacted, MembershipError, OpenError, ReadError};
use crate::log::Log;
use crate::machine::{Machine, Shared};
use crate::network::Network;
use crate::peer;
use crate::raft::{Proposal, Raft};
use crate::snapshot::Snapshots;
use crate::watch::Watch;
use crate::wire::{self, ForwardReply, ForwardRequest, Refusal};

/// How long an operation looks for a leader before it says that there is none: longer than an election takes.
const LEADER_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait before looking for the leader again.
const LEADER_PAUSE: Duration = Duration::from_millis(25);

/// How long a question to the leader may take once it was sent.
const FORWARD_DEADLINE: Duration = Duration::from_secs(10);

/// How long Raft's threads may take to end when the store is closed.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a new member may take to catch up.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);

/// How far behind the leader a learner may be, in log entries, when it becomes a voter.
const CATCH_UP_LAG: u64 = 16;

/// After how many log entries a snapshot is made.
const SNAPSHOT_EVERY: u64 = 10_000;

/// How many entries stay in the log after a snapshot, for followers that are a little behind.
const LOG_KEPT: u64 = 20_000;

/// A follower that is further behind than this gets a snapshot.
const LAG_FOR_SNAPSHOT: u64 = 25_000;

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
    pub leader: Option<Member>,
    /// Whether it is this server.
    pub is_self: bool,
    /// Raft's term.
    pub term: u64,
}

/// The replicated store. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    leader: Leader,
    barrier: Barrier,
    leadership: watch::Receiver<Leadership>,
    failure: watch::Receiver<Option<String>>,
    threads: Arc<Mutex<Threads>>,
}

/// Raft's own threads. They may be let go from anywhere, asynchronous code included, and are not waited for.
struct Threads(Option<tokio::runtime::Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What this server does when it leads, and how it finds the one that does.
#[derive(Clone)]
pub(crate) struct Leader {
    raft: Raft,
    shared: Arc<Shared>,
    peers: Arc<dyn Peers>,
    own: Member,
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Store {
    /// Opens what is in the directory and starts Raft on threads of its own. A new directory is an empty store that waits to
    /// be initialized or added.
    ///
    /// # Errors
    /// [`OpenError`]; it names the file and what to do.
    pub async fn open(config: Config, peers: Arc<dyn Peers>) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|source| OpenError::Directory { path: config.data_dir.clone(), source })?;
        let log_dir = config.data_dir.join("log");
        let log = Log::open(&log_dir).map_err(|source| OpenError::Log { path: log_dir, source })?;
        let (machine, shared) = Machine::open(Snapshots::open(config.data_dir.join("snapshots"))?)?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("raft")
            .enable_all()
            .build()
            .map_err(|error| OpenError::Raft(error.to_string()))?;
        let settings = Arc::new(settings(config.timing).map_err(|error| OpenError::Raft(error.to_string()))?);
        let network = Network { peers: peers.clone() };
        let id = config.member.id;
        let raft = runtime.spawn(async move { Raft::new(id, settings, network, log, machine).await });
        let raft = raft
            .await
            .map_err(|error| OpenError::Raft(error.to_string()))?
            .map_err(|error| OpenError::Raft(error.to_string()))?;

        let leader = Leader { raft, shared, peers, own: config.member, changing: Arc::default() };
        let (leadership, failure) = (leader.follow(&runtime), leader.notice_failure(&runtime));
        let asking = leader.clone();
        let (barrier, run) = Barrier::new(move || {
            let leader = asking.clone();
            async move { leader.read_index().await }
        });
        runtime.spawn(run);
        Ok(Self { leader, barrier, leadership, failure, threads: Arc::new(Mutex::new(Threads(Some(runtime)))) })
    }

    /// Makes this server the first and only one of a new cluster; does nothing when it is a member of one.
    ///
    /// # Errors
    /// When the disk fails, or the server does not come to lead in time.
    pub async fn initialize(&self) -> Result<(), MembershipError> {
        let refused = |error: String| MembershipError::Refused(error);
        if self.leader.raft.is_initialized().await.map_err(|error| refused(error.to_string()))? {
            return Ok(());
        }
        let members =
            [(self.leader.own.id, self.leader.own.clone())].into_iter().collect::<std::collections::BTreeMap<_, _>>();
        self.leader.raft.initialize(members).await.map_err(|error| refused(error.to_string()))?;
        // The first server's own id counts as given.
        self.leader.propose(&Command::AllocateMember).await.map_err(|_| MembershipError::Unavailable).map(drop)
    }

    /// Whether this server is a member of a cluster, as far as its disk knows.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn is_initialized(&self) -> Result<bool, ReadError> {
        self.leader.raft.is_initialized().await.map_err(|_| ReadError::Unavailable)
    }

    /// A member id that was never given before, from the log.
    ///
    /// # Errors
    /// [`MembershipError::Unavailable`].
    pub async fn allocate_member_id(&self) -> Result<u64, MembershipError> {
        loop {
            match self.leader.propose(&Command::AllocateMember).await {
                // A first server that was killed while it was initialized has an id that the log does not know of.
                Ok(Outcome::Member(id)) if self.members().iter().any(|member| member.id == id) => {}
                Ok(Outcome::Member(id)) => return Ok(id),
                Ok(other) => return Err(MembershipError::Refused(format!("the store answered {other:?}"))),
                Err(_) => return Err(MembershipError::Unavailable),
            }
        }
    }

    /// Adds a server: it learns first, and votes once it has caught up. Any server may be asked; one change at a time.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn add_member(&self, member: Member) -> Result<(), MembershipError> {
        self.leader.add_member(member).await
    }

    /// Serves a stream that another server's store opened, until it ends.
    pub async fn serve_peer(&self, kind: PeerStream, stream: Box<dyn PeerIo>) {
        let handle = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .as_ref()
            .map(|runtime| runtime.handle().clone());
        let Some(handle) = handle else { return };
        let leader = self.leader.clone();
        // On Raft's own threads, so that whoever is busy here does not delay a heartbeat.
        let served = handle.spawn(async move { peer::serve(&leader.raft, &leader, kind, stream).await });
        // It is only cancelled when the store is closed.
        let _ = served.await;
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
        match self.leader.propose(&Command::Transaction(transaction)).await? {
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
        let next_index = self.barrier.read_index().await?;
        let mut applied = self.leader.shared.applied();
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
        let mut applied = self.leader.shared.applied();
        let reached = tokio::time::timeout(deadline, applied.wait_for(|applied| applied.revision >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ReadError::Behind { wanted: revision, have: self.view().revision() }),
        }
    }

    /// What this server has now.
    pub fn view(&self) -> View {
        self.leader.shared.view()
    }

    /// What this server had at `revision`; `None` when its history does not reach back to it, or it is to come.
    pub async fn view_at(&self, revision: Revision) -> Option<View> {
        self.leader.shared.view_at(revision)
    }

    /// The changes after `after` of all keys that begin with `prefix`.
    ///
    /// # Errors
    /// [`Compacted`] when this server's history does not reach back so far.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Compacted> {
        self.leader.shared.watch(prefix, after)
    }

    /// Who leads, as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Ends when the store can no longer go on, such as after a failed write to disk; answers why. The process must end then.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The store was shut down, which is no failure.
            Err(_) => std::future::pending().await,
        }
    }

    /// The servers of the cluster, learners included, by id.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.leader.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        membership.nodes().map(|(_, member)| member.clone()).collect()
    }

    /// This server.
    pub fn own(&self) -> &Member {
        &self.leader.own
    }

    /// Stops Raft and closes the files; watches end.
    pub async fn shutdown(&self) {
        // It fails only when it is over already.
        let _ = self.leader.raft.shutdown().await;
        self.leader.shared.close();
        let runtime = self.threads.lock().unwrap_or_else(PoisonError::into_inner).0.take();
        if let Some(runtime) = runtime {
            // It waits for what Raft still holds, so that the directory can be opened again when this returns.
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(CLOSE_DEADLINE)).await;
        }
    }
}

/// What one try to reach the leader came to.
enum Attempt<T> {
    Done(T),
    /// Certainly nothing was done: try again.
    Again,
}

impl Leader {
    /// Proposes a command here or at the leader; tries again as long as it was certainly not proposed.
    async fn propose(&self, command: &Command) -> Result<Outcome, CommitError> {
        let bytes = bytes::Bytes::from(command.encode());
        let end = Instant::now() + LEADER_DEADLINE;
        loop {
            let attempt = match self.current() {
                Some(leader) if leader.id == self.own.id => self.write(bytes.clone()).await?,
                Some(leader) => match self.forward(&leader, &ForwardRequest::Write(bytes.clone())).await {
                    Ok(ForwardReply::Outcome(outcome)) => {
                        let outcome = Outcome::decode(&outcome)
                            .map_err(|error| CommitError::Unknown { reason: error.to_string() })?;
                        Attempt::Done(outcome)
                    }
                    Ok(ForwardReply::Refused(Refusal::Other(message))) => {
                        return Err(CommitError::TooLarge { message });
                    }
                    Ok(ForwardReply::Unknown(reason)) => return Err(CommitError::Unknown { reason }),
                    Ok(_) | Err(Unsent::NotSent) => Attempt::Again,
                    Err(Unsent::Sent(reason)) => return Err(CommitError::Unknown { reason }),
                },
                None => Attempt::Again,
            };
            match attempt {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Again if Instant::now() > end => return Err(CommitError::Unavailable),
                Attempt::Again => tokio::time::sleep(LEADER_PAUSE).await,
            }
        }
    }

    /// Proposes here.
    async fn write(&self, command: bytes::Bytes) -> Result<Attempt<Outcome>, CommitError> {
        let written = tokio::time::timeout(FORWARD_DEADLINE, self.raft.client_write(Proposal(command))).await;
        // A leader that is cut off would wait for ever: what it has appended may yet be carried out.
        let Ok(written) = written else {
            return Err(CommitError::Unknown { reason: "no majority answered in time".to_string() });
        };
        match written {
            Ok(response) => Ok(Attempt::Done(response.data)),
            // The library refuses with it before it appends; an entry that it did append is answered, or lost with the leader.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Ok(Attempt::Again),
            Err(error) => Err(CommitError::Unknown { reason: error.to_string() }),
        }
    }

    async fn read_index(&self) -> Result<u64, ReadError> {
        let end = Instant::now() + LEADER_DEADLINE;
        loop {
            match self.current() {
                Some(leader) if leader.id == self.own.id => {
                    if let Some(index) = self.own_read_index().await {
                        return Ok(index);
                    }
                }
                Some(leader) => {
                    if let Ok(ForwardReply::ReadIndex(index)) = self.forward(&leader, &ForwardRequest::ReadIndex).await
                    {
                        return Ok(index);
                    }
                }
                None => {}
            }
            if Instant::now() > end {
                return Err(ReadError::Unavailable);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    async fn own_read_index(&self) -> Option<u64> {
        let asked = tokio::time::timeout(LEADER_DEADLINE, self.raft.get_read_log_id(ReadPolicy::ReadIndex)).await;
        let (read, _) = asked.ok()?.ok()?;
        Some(read.index() + 1)
    }

    async fn add_member(&self, member: Member) -> Result<(), MembershipError> {
        let end = Instant::now() + LEADER_DEADLINE;
        loop {
            match self.current() {
                Some(leader) if leader.id == self.own.id => {
                    return self.own_add_member(member).await.map_err(MembershipError::from);
                }
                Some(leader) => match self.forward(&leader, &ForwardRequest::AddMember(member.clone())).await {
                    Ok(ForwardReply::Done) => return Ok(()),
                    Ok(ForwardReply::Refused(refusal)) => return Err(refusal.into()),
                    // Adding the same member twice is harmless, so whatever happened, it is tried again.
                    _ => {}
                },
                None => {}
            }
            if Instant::now() > end {
                return Err(MembershipError::Unavailable);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    async fn own_add_member(&self, member: Member) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing.lock().await;
        let refused = |error: &dyn std::fmt::Display| Refusal::Other(error.to_string());
        let id = member.id;
        if self.raft.voter_ids().any(|voter| voter == id) {
            return Ok(());
        }
        self.raft.add_learner(id, member, false).await.map_err(|error| refused(&error))?;
        // The call above answers before the learner has anything, so look at what it has.
        let caught_up = |metrics: &openraft::RaftMetrics<crate::raft::Types>| {
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|replication| replication.get(&id)?.as_ref().map(|log_id| log_id.index));
            matched.is_some_and(|matched| matched + CATCH_UP_LAG >= metrics.last_log_index.unwrap_or(0))
        };
        let waited = self.raft.wait(Some(CATCH_UP_DEADLINE)).metrics(caught_up, "the learner has caught up").await;
        waited.map_err(|_| Refusal::NotCaughtUp(id))?;
        let voters = ChangeMembers::AddVoterIds([id].into());
        self.raft.change_membership(voters, false).await.map_err(|error| refused(&error))?;
        Ok(())
    }

    /// Answers what another server asks of the leader.
    pub(crate) async fn answer(&self, request: ForwardRequest) -> ForwardReply {
        match request {
            // Nothing that could not be applied may reach the log, whoever sends it.
            ForwardRequest::Write(command) if !acceptable(&command) => {
                ForwardReply::Refused(Refusal::Other("the command cannot be read, or is too large".to_string()))
            }
            ForwardRequest::Write(command) => match self.write(command).await {
                Ok(Attempt::Done(outcome)) => ForwardReply::Outcome(outcome.encode()),
                Ok(Attempt::Again) => ForwardReply::NotLeader,
                Err(error) => ForwardReply::Unknown(error.to_string()),
            },
            ForwardRequest::ReadIndex => {
                self.own_read_index().await.map_or(ForwardReply::NotLeader, ForwardReply::ReadIndex)
            }
            ForwardRequest::AddMember(_) if self.current().is_none_or(|leader| leader.id != self.own.id) => {
                ForwardReply::NotLeader
            }
            ForwardRequest::AddMember(member) => match self.own_add_member(member).await {
                Ok(()) => ForwardReply::Done,
                Err(refusal) => ForwardReply::Refused(refusal),
            },
        }
    }

    /// The leader, if one is known.
    fn current(&self) -> Option<Member> {
        leadership(&self.raft.metrics().borrow_watched()).leader
    }

    /// One question to `leader` on a stream of its own.
    async fn forward(&self, leader: &Member, request: &ForwardRequest) -> Result<ForwardReply, Unsent> {
        let mut stream = self.peers.open(leader, PeerStream::Forward).await.map_err(|_| Unsent::NotSent)?;
        let conversation = async {
            wire::send(&mut stream, request).await?;
            wire::expect(&mut stream).await
        };
        match tokio::time::timeout(FORWARD_DEADLINE, conversation).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Unsent::Sent(error.to_string())),
            Err(_) => Err(Unsent::Sent("it did not answer in time".to_string())),
        }
    }

    /// Keeps a channel with who leads.
    fn follow(&self, runtime: &tokio::runtime::Runtime) -> watch::Receiver<Leadership> {
        let mut metrics = self.raft.metrics();
        let (sender, receiver) = watch::channel(leadership(&metrics.borrow_watched()));
        runtime.spawn(async move {
            while metrics.changed().await.is_ok() {
                let now = leadership(&metrics.borrow_and_update());
                sender.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
            }
        });
        receiver
    }

    /// Keeps a channel with why Raft stopped, if it did.
    fn notice_failure(&self, runtime: &tokio::runtime::Runtime) -> watch::Receiver<Option<String>> {
        let mut metrics = self.raft.metrics();
        let (sender, receiver) = watch::channel(None);
        runtime.spawn(async move {
            while metrics.changed().await.is_ok() {
                let failed = metrics.borrow_and_update().running_state.clone().err();
                match failed {
                    None | Some(openraft::errors::Fatal::Stopped) => {}
                    Some(error) => {
                        sender.send_replace(Some(error.to_string()));
                    }
                }
            }
        });
        receiver
    }
}

/// A question got no answer.
enum Unsent {
    /// It certainly did not arrive.
    NotSent,
    /// It may have arrived.
    Sent(String),
}

/// Whether a command from another server may be proposed.
fn acceptable(command: &[u8]) -> bool {
    match Command::decode(command) {
        Ok(Command::Transaction(transaction)) => transaction.check_size().is_ok(),
        Ok(Command::AllocateMember) => true,
        Err(_) => false,
    }
}

fn leadership(metrics: &openraft::RaftMetrics<crate::raft::Types>) -> Leadership {
    let leader = metrics.current_leader.and_then(|id| metrics.membership_config.membership().get_node(&id).cloned());
    Leadership { is_self: metrics.state == ServerState::Leader && leader.is_some(), leader, term: metrics.current_term }
}

fn settings(timing: Timing) -> Result<openraft::Config, openraft::ConfigError> {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = openraft::Config {
        cluster_name: "shoal".to_string(),
        heartbeat_interval: milliseconds(timing.heartbeat),
        election_timeout_min: milliseconds(timing.election_min),
        election_timeout_max: milliseconds(timing.election_max),
        install_snapshot_timeout: 60_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: LOG_KEPT,
        replication_lag_threshold: LAG_FOR_SNAPSHOT,
        enable_pre_vote: Some(true),
        ..openraft::Config::default()
    };
    config.validate()
}
