//! What a store is given: where it keeps its files, who it is, how it reaches the others, how patient it is.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

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
    /// For a local network and SSDs.
    pub const LAN: Self = Self {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(300),
        election_max: Duration::from_millis(600),
    };

    /// For flash cards and slow links.
    pub const EDGE: Self = Self {
        heartbeat: Duration::from_millis(250),
        election_min: Duration::from_millis(1500),
        election_max: Duration::from_millis(3000),
    };
}

/// Everything that a store is given beside its [`Peers`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder for the log and the snapshots; made if it is missing.
    pub data_dir: PathBuf,
    /// Who this server is.
    pub member: Member,
    /// How patient it is.
    pub timing: Timing,
}

/// What a stream between two stores is for; the first byte that [`Peers`] must carry across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PeerStream {
    /// Raft's short messages and the log.
    Raft = 0,
    /// A snapshot.
    Snapshot = 1,
    /// What a follower asks of the leader for its own clients.
    Forward = 2,
}

impl PeerStream {
    /// The kind that a byte means, if it means one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raft, Self::Snapshot, Self::Forward].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A stream of bytes both ways.
pub trait PeerIo: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> PeerIo for T {}

/// The way to the other servers.
pub trait Peers: Send + Sync + 'static {
    /// Opens a stream to `to`, which must hand it to its [`crate::Store::serve_peer`]. An unreachable server is an error,
    /// soon: every wait here delays elections.
    fn open(&self, to: &Member, kind: PeerStream) -> BoxFuture<'static, std::io::Result<Box<dyn PeerIo>>>;
}
