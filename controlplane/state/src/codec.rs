//! Commands and snapshots as bytes: a version byte, then postcard.
//!
//! Versions only grow, and every version that was ever written stays readable; the enums are append-only.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Entry, Key, Outcome, Revision};
use crate::state::State;

/// The version that is written now.
pub const VERSION: u8 = 1;

/// Bytes that are no command, outcome or snapshot of a version we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// A later version of this program wrote it.
    #[error("it has format version {0}, and this program reads up to {VERSION}")]
    Version(u8),
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    revision: Revision,
    last_member: u64,
    entries: Vec<(Key, Entry)>,
}

impl Command {
    /// The command as bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The command in `bytes`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode(bytes)
    }
}

impl Outcome {
    /// The outcome as bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The outcome in `bytes`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode(bytes)
    }
}

impl State {
    /// The replicated state as bytes, the same on every server that applied the same commands. The history is not in it.
    pub fn encode(&self) -> Vec<u8> {
        let (entries, revision, last_member) = self.parts();
        let entries = entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        encode(&Snapshot { revision, last_member, entries })
    }

    /// The state in `bytes`, without any history.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let snapshot: Snapshot = decode(bytes)?;
        let entries: OrdMap<Key, Entry> = snapshot.entries.into_iter().collect();
        Ok(Self::restore(entries, snapshot.revision, snapshot.last_member))
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("our own types can be written to memory")
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, FormatError> {
    match bytes.split_first() {
        None => Err(FormatError::Empty),
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|error| FormatError::Damaged(error.to_string())),
        Some((&version, _)) => Err(FormatError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Transaction;

    /// The bytes that version 1 wrote. They must stay readable for ever: add a fixture for a new version, never change one.
    #[test]
    fn version_1_is_read() {
        let bytes = hex("01 00 01 00 02 2f 61 02 00 02 2f 61 03 6f 6e 65 01 02 2f 62");
        let mut transaction = Transaction::default();
        transaction.require_absent("/a").put("/a", "one").delete("/b");
        assert_eq!(Command::decode(&bytes), Ok(Command::Transaction(transaction.clone())));
        assert_eq!(Command::Transaction(transaction).encode(), bytes);

        let bytes = hex("01 01 00 01 02 2f 61 03 6f 6e 65 01 01");
        let mut state = State::new();
        state.apply(Command::decode(&hex("01 00 00 01 00 02 2f 61 03 6f 6e 65")).expect("a command"));
        assert_eq!(state.encode(), bytes);
        assert_eq!(State::decode(&bytes).expect("a snapshot").encode(), bytes);
    }

    #[test]
    fn later_versions_and_damage_are_told_apart() {
        assert_eq!(Command::decode(&[]), Err(FormatError::Empty));
        assert_eq!(Command::decode(&[9, 0]), Err(FormatError::Version(9)));
        assert!(matches!(Command::decode(&[1, 200]), Err(FormatError::Damaged(_))));
    }

    fn hex(text: &str) -> Vec<u8> {
        text.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect()
    }
}
