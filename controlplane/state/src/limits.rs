//! Every limit of the state, with its unit. The constants are part of the state machine: all servers must have the same ones.

/// The largest value, in bytes, as etcd's request limit.
pub const VALUE_BYTES: usize = 3 << 19;

/// The longest key, in bytes.
pub const KEY_BYTES: usize = 1024;

/// The most writes and preconditions in one transaction.
pub const TRANSACTION_PARTS: usize = 1024;

/// The largest transaction, all keys and values together, in bytes: one entry of the log.
pub const TRANSACTION_BYTES: usize = 8 << 20;

/// The size of all keys and values, in bytes, above which only deletes are taken, whatever smaller limit the servers are given.
pub const STATE_BYTES: u64 = 8 << 30;

/// How many keys one command takes away because their time is up.
pub const EXPIRED_AT_ONCE: usize = 500;

/// How much of the past a server keeps. It is each server's own business: the history is no part of the replicated state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// How many changes.
    pub changes: usize,
    /// How many bytes of keys, and of values that the state itself does not hold any more.
    pub bytes: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { changes: 20_000, bytes: 64 << 20 }
    }
}
