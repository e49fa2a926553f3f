//! The state machine made durable and replicated: a log on disk, Raft between the servers, snapshots, watches.
//!
//! [`Store`] is all that the rest of the server sees of consensus; no type of the Raft library leaves this crate. How bytes
//! reach another server is the caller's business, through [`Peers`]. Start with `store`, then `machine` (applying), `log`
//! (the write-ahead log) and `network` (talking to the other servers).

pub mod backup;
mod barrier;
mod config;
mod disk;
mod error;
mod forward;
mod keeper;
mod leader;
mod log;
mod machine;
mod members;
mod network;
mod peer;
mod pieces;
mod raft;
mod random;
pub mod seal;
mod snapshot;
mod start;
mod store;
#[cfg(feature = "simulation")]
pub mod targets;
mod wal;
mod watch;
mod wire;

pub use config::{Capacity, Config, Member, MemberStatus, PeerIo, PeerStream, Peers, Timing, Work};
pub use disk::{Disk, DiskFile, Folder};
pub use error::{CommitError, Compacted, Lagged, MembershipError, OpenError, ReadError};
pub use machine::FEATURE_LEVEL;
#[cfg(feature = "simulation")]
pub use random::simulation;
pub use shoal_state::{
    Change, Command, Entry, Image, ImageReader, Key, Outcome, Precondition, Revision, Transaction, UnixSeconds, View,
    Write, limits,
};
pub use start::{Threads, is_empty, park, parked, seed};
pub use store::{Committed, Leadership, Store};
pub use watch::{Watch, WatchEvent};
