//! The state machine made durable and replicated: a log on disk, Raft between the servers, snapshots, watches.
//!
//! [`Store`] is all that the rest of the server sees of consensus; no type of the Raft library leaves this crate. How bytes
//! reach another server is the caller's business, through [`Peers`]. Start with `store`, then `machine` (applying), `log`
//! (the write-ahead log) and `network` (talking to the other servers).

mod barrier;
mod config;
mod error;
mod log;
mod machine;
mod network;
mod peer;
mod raft;
mod record;
mod snapshot;
mod store;
mod watch;
mod wire;

pub use config::{Config, Member, PeerIo, PeerStream, Peers, Timing};
pub use error::{CommitError, Compacted, Lagged, MembershipError, OpenError, ReadError};
pub use shoal_state::{Change, Command, Entry, Key, Outcome, Precondition, Revision, Transaction, View, Write, limits};
pub use store::{Committed, Leadership, Store};
pub use watch::{Watch, WatchEvent};
