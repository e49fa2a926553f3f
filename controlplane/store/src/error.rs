//! What each operation of the store can say.

use shoal_state::{Entry, Revision};

/// The store cannot be opened; nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused.
    #[error("failed to use {name}")]
    Disk {
        /// The file or folder.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The log is damaged, incomplete, or of another version.
    #[error("failed to read the log: {0}")]
    Log(std::io::Error),
    /// A snapshot is damaged or of another version.
    #[error("failed to read the snapshot {name}: {reason}")]
    Snapshot {
        /// The file.
        name: String,
        /// Why.
        reason: String,
    },
    /// The consensus engine refused what it found on disk.
    #[error("failed to start consensus: {0}")]
    Raft(String),
}

/// A transaction was not carried out, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold; nothing was changed.
    #[error("precondition {index} did not hold")]
    PreconditionFailed {
        /// Which one, counted from 0.
        index: usize,
        /// What its key has.
        current: Option<Entry>,
    },
    /// Above a limit; nothing was changed.
    #[error("{message}")]
    TooLarge {
        /// Which limit.
        message: String,
    },
    /// The store is full: delete something first. Nothing was changed.
    #[error("the store holds {size} bytes and is full: delete objects, then write again")]
    Full {
        /// The size of all keys and values, in bytes.
        size: u64,
    },
    /// No leader could be reached in time; nothing was changed.
    #[error("no majority of the servers can be reached")]
    Unavailable,
    /// The leader was lost while it worked on it: it may or may not have been carried out. Look before trying again.
    #[error("the leader was lost before it answered: {reason}")]
    Unknown {
        /// How.
        reason: String,
    },
}

/// The present state cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader could be reached in time.
    #[error("no majority of the servers can be reached")]
    Unavailable,
    /// This server did not get to the revision in time.
    #[error("revision {wanted} is not here yet: this server is at {have}")]
    Behind {
        /// The revision asked for.
        wanted: Revision,
        /// What this server has.
        have: Revision,
    },
}

/// A change of the servers did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// No leader could be reached in time.
    #[error("no majority of the servers can be reached")]
    Unavailable,
    /// The new server did not catch up in time; it stays a learner and may be added again.
    #[error("member {0} did not catch up in time")]
    NotCaughtUp(u64),
    /// The leader refused.
    #[error("{0}")]
    Refused(String),
}

/// The revision is older than this server's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes up to revision {0} are compacted")]
pub struct Compacted(pub Revision);

/// The watcher was too slow, and was cut off: what it missed can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch fell behind and was cut off")]
pub struct Lagged;
