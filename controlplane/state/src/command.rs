//! What can be asked of the state, and what it answers.

use std::num::NonZeroU64;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits;

/// A key: a path such as `/registry/core/pods/default/web-1`. Keys are ordered bytewise.
pub type Key = String;

/// The number of a state: it grows by one with every transaction that changes something, whatever it changes.
///
/// It is a counter of the state machine and not the log's index, so that a restored cluster can go on above every revision that a
/// client has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A value, and when it came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The bytes.
    pub value: Bytes,
    /// The revision that created the key; a key that was deleted and made again has a new one.
    pub created: Revision,
    /// The revision that wrote the value.
    pub modified: Revision,
    /// From when on the key may be taken away by [`Command::Expire`]; `None` for never.
    pub expires: Option<UnixSeconds>,
}

/// A point in time: seconds since 1970.
pub type UnixSeconds = NonZeroU64;

/// What must hold for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The key has no value.
    Absent(Key),
    /// The key has a value.
    Exists(Key),
    /// The key has a value that this revision wrote.
    ModifiedAt(Key, Revision),
}

impl Precondition {
    /// The key that it looks at.
    pub fn key(&self) -> &Key {
        let (Self::Absent(key) | Self::Exists(key) | Self::ModifiedAt(key, _)) = self;
        key
    }
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Gives the key this value.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
    },
    /// Takes the key away; one that has no value stays so.
    Delete {
        /// The key.
        key: Key,
    },
    /// Gives the key a value that goes away by itself.
    PutUntil {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// From when on it may be taken away.
        expires: UnixSeconds,
    },
}

/// Preconditions and writes over any keys: all writes are done, at one revision, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// All of them must hold.
    pub preconditions: Vec<Precondition>,
    /// Done in order; the last one on a key counts.
    pub writes: Vec<Write>,
}

impl Transaction {
    /// Wants `key` to have no value.
    pub fn require_absent(&mut self, key: impl Into<Key>) -> &mut Self {
        self.preconditions.push(Precondition::Absent(key.into()));
        self
    }

    /// Wants `key` to have a value.
    pub fn require_exists(&mut self, key: impl Into<Key>) -> &mut Self {
        self.preconditions.push(Precondition::Exists(key.into()));
        self
    }

    /// Wants `key` to have the value that `revision` wrote.
    pub fn require_modified_at(&mut self, key: impl Into<Key>, revision: Revision) -> &mut Self {
        self.preconditions.push(Precondition::ModifiedAt(key.into(), revision));
        self
    }

    /// Gives `key` a value.
    pub fn put(&mut self, key: impl Into<Key>, value: impl Into<Bytes>) -> &mut Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into() });
        self
    }

    /// Gives `key` a value that is taken away some time after `expires`.
    pub fn put_until(&mut self, key: impl Into<Key>, value: impl Into<Bytes>, expires: UnixSeconds) -> &mut Self {
        self.writes.push(Write::PutUntil { key: key.into(), value: value.into(), expires });
        self
    }

    /// Whether it gives any key a value, which takes room.
    pub fn puts(&self) -> bool {
        self.writes.iter().any(|write| !matches!(write, Write::Delete { .. }))
    }

    /// Whether it is within the limits of [`crate::limits`]; to be asked before it is proposed, and asked again when it is applied.
    ///
    /// # Errors
    /// Which limit it is above.
    pub fn check_size(&self) -> Result<(), String> {
        let parts = self.preconditions.len() + self.writes.len();
        if parts > limits::TRANSACTION_PARTS {
            return Err(format!("a transaction of {parts} parts is above the limit of {}", limits::TRANSACTION_PARTS));
        }
        let mut total: usize = 0;
        let of_preconditions = self.preconditions.iter().map(|precondition| (precondition.key(), 0));
        let of_writes = self.writes.iter().map(|write| match write {
            Write::Put { key, value } | Write::PutUntil { key, value, .. } => (key, value.len()),
            Write::Delete { key } => (key, 0),
        });
        for (key, value) in of_preconditions.chain(of_writes) {
            if key.len() > limits::KEY_BYTES {
                return Err(format!("a key of {} bytes is above the limit of {}", key.len(), limits::KEY_BYTES));
            }
            if value > limits::VALUE_BYTES {
                return Err(format!("an object of {value} bytes is above the limit of {}", limits::VALUE_BYTES));
            }
            total += key.len() + value;
        }
        if total > limits::TRANSACTION_BYTES {
            return Err(format!("a transaction of {total} bytes is above the limit of {}", limits::TRANSACTION_BYTES));
        }
        Ok(())
    }

    /// Takes `key` away.
    pub fn delete(&mut self, key: impl Into<Key>) -> &mut Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }
}

/// One entry of the log. The variants' order is part of the format: new ones come last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Do this, if its preconditions hold.
    Transaction(Transaction),
    /// Answer a member id that was never answered before.
    AllocateMember,
    /// Take away keys whose time is up at `now`, the oldest first, at most [`limits::EXPIRED_AT_ONCE`] of them; each has a
    /// revision of its own. The proposer reads the clock, so that all servers take away the same keys.
    Expire {
        /// The proposer's time.
        now: UnixSeconds,
    },
    /// From here on the log, the snapshots and the frames may hold what this feature level brought; every server of the cluster
    /// must know it. A level never falls.
    RaiseFeatureLevel {
        /// The level.
        level: u32,
    },
}

/// What became of a command. The variants' order is part of the format: new ones come last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The transaction was carried out; the revision is the one before when it changed nothing.
    Committed {
        /// The state's revision after it.
        revision: Revision,
    },
    /// A precondition did not hold; nothing was changed.
    Failed {
        /// Which one, counted from 0: the first that did not hold.
        precondition: usize,
        /// What its key has.
        current: Option<Entry>,
    },
    /// A key, a value or the whole transaction is above its limit; nothing was changed. The text says which.
    TooLarge(String),
    /// The state is full; nothing was changed. Deletes are still taken.
    Full {
        /// The size of all keys and values, in bytes.
        size: u64,
    },
    /// A member id.
    Member(u64),
}
