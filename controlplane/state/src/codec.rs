//! Commands and outcomes as bytes: a version byte, then postcard.
//!
//! Versions only grow, and every version that was ever written stays readable; the enums are append-only.

use serde::{Deserialize, Serialize};

use crate::command::{Command, Outcome};

/// The version of a command that is written now.
const COMMAND: u8 = 1;

/// The version of an outcome that is written now.
const OUTCOME: u8 = 2;

/// Bytes that are no command, outcome or chunk of a version we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Another version of this program wrote it.
    #[error(
        "it has format version {found}, and this program reads version {known}: use the version of Shoal that wrote it, or a later one"
    )]
    Version {
        /// What it has.
        found: u8,
        /// What is known here.
        known: u8,
    },
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl Command {
    /// The command as bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(COMMAND, self)
    }

    /// The command in `bytes`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode(COMMAND, bytes)
    }
}

impl Outcome {
    /// The outcome as bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(OUTCOME, self)
    }

    /// The outcome in `bytes`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode(OUTCOME, bytes)
    }
}

pub(crate) fn encode(version: u8, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("our own types can be written to memory")
}

pub(crate) fn decode<T: for<'de> Deserialize<'de>>(known: u8, bytes: &[u8]) -> Result<T, FormatError> {
    let damaged = |error: postcard::Error| FormatError::Damaged(error.to_string());
    match bytes.split_first() {
        None => Err(FormatError::Empty),
        Some((&found, rest)) if found == known => match postcard::take_from_bytes(rest).map_err(damaged)? {
            (value, []) => Ok(value),
            (_, rest) => Err(FormatError::Damaged(format!("{} bytes follow its end", rest.len()))),
        },
        Some((&found, _)) => Err(FormatError::Version { found, known }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Transaction;
    use crate::image::ImageReader;
    use crate::state::State;

    /// The bytes that these versions wrote. They must stay readable for ever: add a fixture for a new version, never change one.
    #[test]
    fn version_1_of_commands_is_read() {
        let bytes = hex("01 00 01 00 02 2f 61 02 00 02 2f 61 03 6f 6e 65 01 02 2f 62");
        let mut transaction = Transaction::default();
        transaction.require_absent("/a").put("/a", "one").delete("/b");
        assert_eq!(Command::decode(&bytes), Ok(Command::Transaction(transaction.clone())));
        assert_eq!(Command::Transaction(transaction).encode(), bytes);
    }

    #[test]
    fn feature_level_1_of_commands_is_read() {
        let mut transaction = Transaction::default();
        let expires = 9.try_into().expect("not zero");
        transaction.put_until("/a", "one", expires);
        for (text, command) in [
            ("01 00 00 01 02 02 2f 61 03 6f 6e 65 09", Command::Transaction(transaction)),
            ("01 01", Command::AllocateMember),
            ("01 02 09", Command::Expire { now: expires }),
            ("01 03 02", Command::RaiseFeatureLevel { level: 2 }),
        ] {
            assert_eq!(Command::decode(&hex(text)), Ok(command.clone()));
            assert_eq!(command.encode(), hex(text));
        }
    }

    #[test]
    fn version_2_of_images_is_read() {
        let chunks = ["02 00 01 00 00", "02 01 01 02 2f 61 03 6f 6e 65 01 01 00", "02 02 01"].map(hex);
        let mut state = State::new();
        state.apply(Command::decode(&hex("01 00 00 01 00 02 2f 61 03 6f 6e 65")).expect("a command"));
        assert_eq!(state.image().chunks().collect::<Vec<_>>(), chunks);
        let mut reader = ImageReader::default();
        for chunk in &chunks {
            reader.take(chunk).expect("a chunk");
        }
        assert_eq!(reader.finish().expect("whole").chunks().collect::<Vec<_>>(), chunks);
    }

    #[test]
    fn later_versions_and_damage_are_told_apart() {
        assert_eq!(Command::decode(&[]), Err(FormatError::Empty));
        assert_eq!(Command::decode(&[9, 0]), Err(FormatError::Version { found: 9, known: 1 }));
        assert!(matches!(Command::decode(&[1, 200]), Err(FormatError::Damaged(_))));
        assert!(matches!(Command::decode(&[1, 1, 0]), Err(FormatError::Damaged(_))));
    }

    #[test]
    fn an_image_that_is_cut_off_or_shuffled_is_refused() {
        let mut state = State::new();
        state.apply(Command::decode(&hex("01 00 00 01 00 02 2f 61 03 6f 6e 65")).expect("a command"));
        let chunks: Vec<Vec<u8>> = state.image().chunks().collect();
        for order in [&[0, 1][..], &[1], &[0, 2], &[0, 0], &[0, 1, 2, 1]] {
            let mut reader = ImageReader::default();
            let read = order.iter().try_for_each(|chunk| reader.take(&chunks[*chunk]));
            assert!(read.is_err() || reader.finish().is_err(), "{order:?}");
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        text.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect()
    }
}
