//! What this server does when it leads, and how it finds the one that does.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::{ClientWriteResult, ReadPolicy};
use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use shoal_state::{Command, Outcome};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Capacity, Member, Peers, Timing};
use crate::error::{CommitError, ReadError};
use crate::forward::{Forwards, Reply, Unsent};
use crate::machine::Shared;
use crate::raft::{Callback, Proposal, Raft, Types};
use crate::random::seeded;
use crate::store::Leadership;
use crate::wire::{ForwardReply, ForwardRequest, Refusal};

/// How long an operation looks for a leader before it says that there is none: longer than an election takes.
pub(crate) const LEADER_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait before looking for the leader again.
pub(crate) const LEADER_PAUSE: Duration = Duration::from_millis(25);

/// How long a question to the leader may take once it was sent.
pub(crate) const FORWARD_DEADLINE: Duration = Duration::from_secs(10);

/// How soon it is noticed that Raft has stopped.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Clones are the same server.
#[derive(Clone)]
pub(crate) struct Leader {
    parts: Arc<Parts>,
}

struct Parts {
    raft: Raft,
    shared: Arc<Shared>,
    forwards: Forwards,
    own: Member,
    capacity: Capacity,
    timing: Timing,
    changing: tokio::sync::Mutex<()>,
    leadership: watch::Receiver<Leadership>,
}

/// What one try to reach the leader came to.
pub(crate) enum Attempt<T> {
    Done(T),
    /// Certainly nothing was done: try again.
    Again,
}

impl Leader {
    pub(crate) fn new(
        raft: Raft,
        shared: Arc<Shared>,
        peers: Arc<dyn Peers>,
        own: Member,
        capacity: Capacity,
        timing: Timing,
        handle: Handle,
    ) -> Self {
        let leadership = follow(&raft, &handle);
        let forwards = Forwards::new(peers, handle);
        let changing = tokio::sync::Mutex::default();
        Self { parts: Arc::new(Parts { raft, shared, forwards, own, capacity, timing, changing, leadership }) }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.parts.raft
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.parts.shared
    }

    pub(crate) fn own(&self) -> &Member {
        &self.parts.own
    }

    pub(crate) fn timing(&self) -> Timing {
        self.parts.timing
    }

    /// Held while the servers are being changed.
    pub(crate) fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.parts.changing
    }

    /// Whether the store was closed.
    pub(crate) fn is_over(&self) -> bool {
        self.parts.shared.is_closed()
    }

    /// Proposes a command here or at the leader; tries again as long as it was certainly not proposed.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Outcome, CommitError> {
        let bytes = bytes::Bytes::from(command.encode());
        let end = Instant::now() + LEADER_DEADLINE;
        loop {
            let attempt = match self.current() {
                Some(leader) if leader.id == self.own().id => match self.has_room(command) {
                    Ok(()) => self.write(bytes.clone()).await?,
                    Err(full) => Attempt::Done(full),
                },
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
                Attempt::Again if Instant::now() > end || self.is_over() => return Err(CommitError::Unavailable),
                Attempt::Again => tokio::time::sleep(LEADER_PAUSE).await,
            }
        }
    }

    /// The limit is the leader's and not the state machine's, so that it may be set anew without the servers falling apart.
    fn has_room(&self, command: &Command) -> Result<(), Outcome> {
        let size = self.shared().size();
        let grows = matches!(command, Command::Transaction(transaction) if transaction.puts());
        if grows && size > self.parts.capacity.state_bytes { Err(Outcome::Full { size }) } else { Ok(()) }
    }

    /// Proposes here.
    async fn write(&self, command: bytes::Bytes) -> Result<Attempt<Outcome>, CommitError> {
        let written = tokio::time::timeout(FORWARD_DEADLINE, self.raft().client_write(Proposal(command))).await;
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

    pub(crate) async fn read_index(&self) -> Result<u64, ReadError> {
        let end = Instant::now() + LEADER_DEADLINE;
        loop {
            match self.current() {
                Some(leader) if leader.id == self.own().id => {
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
            if Instant::now() > end || self.is_over() {
                return Err(ReadError::Unavailable);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    async fn own_read_index(&self) -> Option<u64> {
        let asked = tokio::time::timeout(LEADER_DEADLINE, self.raft().get_read_log_id(ReadPolicy::ReadIndex)).await;
        let (read, _) = asked.ok()?.ok()?;
        Some(read.index() + 1)
    }

    /// Takes what another server asks of the leader; `reply` has the answer when there is one.
    pub(crate) async fn take(&self, request: ForwardRequest, reply: Reply) {
        if let ForwardRequest::Write(bytes) = request {
            return self.take_write(bytes, reply).await;
        }
        let leader = self.clone();
        tokio::spawn(seeded(async move { reply.send(leader.answer(request).await) }));
    }

    /// Answers what is asked of the leader, but for a write.
    pub(crate) async fn answer(&self, request: ForwardRequest) -> ForwardReply {
        match request {
            ForwardRequest::Write(_) => ForwardReply::Refused(Refusal::Other("a write is taken otherwise".to_string())),
            ForwardRequest::ReadIndex => {
                self.own_read_index().await.map_or(ForwardReply::NotLeader, ForwardReply::ReadIndex)
            }
            change if !self.leads() => {
                tracing::debug!(?change, "asked to lead, which this server does not");
                ForwardReply::NotLeader
            }
            ForwardRequest::Members => ForwardReply::Members(self.own_members()),
            ForwardRequest::AddMember(member) => done(self.own_add_member(member).await),
            ForwardRequest::RemoveMember(id) => match self.own_remove_member(id).await {
                Ok(Attempt::Again) => ForwardReply::NotLeader,
                removed => done(removed.map(drop)),
            },
            ForwardRequest::TransferLeader(to) => done(self.own_transfer(to).await),
        }
    }

    /// Nothing that could not be applied may reach the log, whoever sends it.
    async fn take_write(&self, bytes: bytes::Bytes, reply: Reply) {
        let command = match Command::decode(&bytes) {
            Ok(command) if is_within_limits(&command) => command,
            _ => {
                let unreadable = "the command cannot be read, or is too large".to_string();
                return reply.send(ForwardReply::Refused(Refusal::Other(unreadable)));
            }
        };
        if let Err(full) = self.has_room(&command) {
            return reply.send(ForwardReply::Outcome(full.encode()));
        }
        let answer = Callback::new(|written: ClientWriteResult<Types>| {
            reply.send(match written {
                Ok(response) => ForwardReply::Outcome(response.data.encode()),
                Err(ClientWriteError::ForwardToLeader(_)) => ForwardReply::NotLeader,
                Err(error) => ForwardReply::Unknown(error.to_string()),
            });
        });
        // Raft has stopped when it does not take it, and the reply says so itself.
        let _ = self.raft().client_write_ff(Proposal(bytes), Some(answer)).await;
    }

    /// A channel with who leads.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.parts.leadership.clone()
    }

    /// The leader, if one is known.
    pub(crate) fn current(&self) -> Option<Arc<Member>> {
        self.parts.leadership.borrow().leader.clone()
    }

    /// Whether this server leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.parts.leadership.borrow().is_self
    }

    /// Asks the leader, for as long as it leads: what a lost one was asked it will not answer.
    pub(crate) async fn forward(&self, to: &Member, request: &ForwardRequest) -> Result<ForwardReply, Unsent> {
        // Not Raft's metrics: they change with every entry, and each would wake all who wait here.
        let mut leadership = self.leadership();
        let deposed = async {
            let leads = |known: &Leadership| known.leader.as_ref().is_none_or(|leader| leader.id == to.id);
            // An error means that the store is over.
            let _ = leadership.wait_for(|known| !leads(known)).await;
        };
        tokio::select! {
            biased;
            answer = self.parts.forwards.ask(to, request) => answer,
            () = deposed => Err(Unsent::Sent("another server leads now".to_string())),
        }
    }

    /// Keeps a channel with why Raft stopped, if it did.
    pub(crate) fn notice_failure(&self, handle: &Handle) -> watch::Receiver<Option<String>> {
        let mut metrics = self.raft().metrics();
        let (sender, receiver) = watch::channel(None);
        handle.spawn(async move {
            while metrics.changed().await.is_ok() {
                let failed = metrics.borrow_and_update().running_state.clone().err();
                match failed {
                    None | Some(openraft::errors::Fatal::Stopped) => {}
                    Some(error) => {
                        sender.send_replace(Some(error.to_string()));
                    }
                }
                // The metrics change with every entry.
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        });
        receiver
    }
}

fn done(outcome: Result<(), Refusal>) -> ForwardReply {
    outcome.map_or_else(ForwardReply::Refused, |()| ForwardReply::Done)
}

fn is_within_limits(command: &Command) -> bool {
    match command {
        Command::Transaction(transaction) => transaction.check_size().is_ok(),
        Command::RaiseFeatureLevel { level } => *level <= crate::machine::FEATURE_LEVEL,
        Command::AllocateMember | Command::Expire { .. } => true,
    }
}

/// Keeps a channel with who leads.
fn follow(raft: &Raft, handle: &Handle) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let (sender, receiver) = watch::channel(leadership(&metrics.borrow_watched()));
    handle.spawn(async move {
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

fn leadership(metrics: &openraft::metrics::RaftServerMetrics<Types>) -> Leadership {
    let known = metrics.current_leader.and_then(|id| metrics.membership_config.membership().get_node(&id));
    let leader = known.map(|member| Arc::new(member.clone()));
    Leadership {
        is_self: metrics.state == ServerState::Leader && leader.is_some(),
        leader,
        term: metrics.vote.leader_id.term,
    }
}
