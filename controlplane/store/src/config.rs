//! What a store is given: where it keeps its files, who it is, how it reaches the others, how patient it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use shoal_state::UnixSeconds;
use shoal_state::limits::History;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::disk::Disk;
use crate::seal::Keyring;
use crate::start::Threads;

/// One server of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number, never given twice: [`crate::Store::allocate_member_id`] gives it, and the first server is 1.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Host and port of its link (UDP).
    pub link_address: String,
    /// Host and port of its API (TCP).
    pub api_address: String,
}

/// How patient the servers are with one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often the leader says that it is there.
    pub heartbeat: Duration,
    /// A server that hears nothing for a random time between this
    pub election_min: Duration,
    /// and this stands for election.
    pub election_max: Duration,
}

impl Timing {
    /// For a local network and SSDs. Raft wakes up five times for each heartbeat, which is most of what an idle server does.
    pub const LAN: Self = Self {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(250),
        election_max: Duration::from_millis(500),
    };

    /// For flash cards and slow links.
    pub const EDGE: Self = Self {
        heartbeat: Duration::from_millis(250),
        election_min: Duration::from_millis(1500),
        election_max: Duration::from_millis(3000),
    };
}

/// How much of everything a server keeps. They may differ from server to server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The size of all keys and values, in bytes, above which the leader takes nothing but deletes.
    pub state_bytes: u64,
    /// How much of the past can be watched from and looked back to.
    pub history: History,
    /// How many bytes the log may have before a snapshot is made out of turn.
    pub log_bytes: u64,
    /// After how many entries of the log a snapshot is made, at the earliest: not before they have as many bytes as the last one, or
    /// half of `log_bytes`.
    pub snapshot_entries: u64,
    /// The room that a file of the log is given when it is made, in bytes.
    pub segment_bytes: u64,
    /// How many bytes of the log are kept in memory as well.
    pub cached_log_bytes: u64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            state_bytes: 1 << 30,
            history: History::default(),
            log_bytes: 256 << 20,
            snapshot_entries: 10_000,
            segment_bytes: 16 << 20,
            cached_log_bytes: 32 << 20,
        }
    }
}

/// Where the store's own work is done.
#[derive(Clone, Default)]
pub enum Work {
    /// On a thread of its own, so that nobody who is busy delays a heartbeat.
    #[default]
    OwnThreads,
    /// On this one, which outlives the store, and on which the link's sockets are best too: what comes from another server then gets
    /// to Raft, and its answer back, without a change of thread.
    On(Arc<Threads>),
    /// On the runtime of whoever opens the store: for a simulation, whose one thread makes everything happen in one order.
    Here,
}

/// Everything that a store is given beside its [`Peers`].
#[derive(Clone)]
pub struct Config {
    /// Where the log and the snapshots are kept.
    pub disk: Arc<dyn Disk>,
    /// The keys with which they are sealed.
    pub keys: Keyring,
    /// Who this server is.
    pub member: Member,
    /// How patient it is.
    pub timing: Timing,
    /// How much it keeps.
    pub capacity: Capacity,
    /// Where it works.
    pub work: Work,
    /// The time, for what goes away by itself. Only the leader asks.
    pub now: fn() -> UnixSeconds,
}

impl Config {
    /// With the usual patience and capacity, on threads of its own, by the system's clock.
    pub fn new(disk: Arc<dyn Disk>, keys: Keyring, member: Member) -> Self {
        Self {
            disk,
            keys,
            member,
            timing: Timing::LAN,
            capacity: Capacity::default(),
            work: Work::default(),
            now: system_time,
        }
    }
}

fn system_time() -> UnixSeconds {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds::new(since_1970.as_secs()).unwrap_or(UnixSeconds::MIN)
}

/// What a stream between two stores is for; the first byte that [`Peers`] must carry across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PeerStream {
    /// Raft's short messages.
    Raft = 0,
    /// A snapshot.
    Snapshot = 1,
    /// What a follower asks of the leader for its own clients.
    Forward = 2,
    /// The log, as it grows: many entries on their way at once.
    Append = 3,
}

impl PeerStream {
    /// The kind that a byte means, if it means one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raft, Self::Snapshot, Self::Forward, Self::Append].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A stream of bytes both ways.
pub trait PeerIo: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> PeerIo for T {}

/// A server, and how it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Who it is.
    pub member: Member,
    /// Whether it votes; a new one learns first.
    pub is_voter: bool,
    /// Whether it leads.
    pub is_leader: bool,
    /// How many entries of the log it has yet to get; `None` when it has not told the leader what it has.
    pub behind: Option<u64>,
    /// Whether the leader has heard of it lately.
    pub is_reachable: bool,
}

/// The way to the other servers.
pub trait Peers: Send + Sync + 'static {
    /// Opens a stream to `to`, which must hand it to its [`crate::Store::serve_peer`]. An unreachable server is an error,
    /// soon: every wait here delays elections.
    fn open(&self, to: &Member, kind: PeerStream) -> BoxFuture<'static, std::io::Result<Box<dyn PeerIo>>>;
}
