//! Every limit of the state, with its unit. They are part of the state machine: all servers must have the same ones.

/// The largest value, in bytes, as etcd's request limit.
pub const VALUE_BYTES: usize = 3 << 19;

/// The longest key, in bytes.
pub const KEY_BYTES: usize = 1024;

/// The most writes and preconditions in one transaction.
pub const TRANSACTION_PARTS: usize = 1024;

/// The largest transaction, all keys and values together, in bytes: one entry of the log.
pub const TRANSACTION_BYTES: usize = 8 << 20;

/// The size of all keys and values, in bytes, above which only deletes are taken.
pub const STATE_BYTES: u64 = 1 << 30;

/// How many changes the history keeps.
pub const HISTORY_CHANGES: usize = 20_000;

/// How many bytes of values the history keeps that the state itself does not hold any more.
pub const HISTORY_BYTES: u64 = 64 << 20;
