//! Our types in the write-ahead log's encoding: a version byte, a length, then postcard.

use std::io;

use raft_log::codeq::{Decode, Encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that is written now; every version that was ever written stays readable.
const VERSION: u8 = 1;

/// The largest record, in bytes: far above any entry, and below what damage would make us allocate.
const LARGEST: u32 = 64 << 20;

/// A value as a record of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record<T>(pub T);

impl<T: Serialize> Encode for Record<T> {
    fn encode<W: io::Write>(&self, mut writer: W) -> Result<usize, io::Error> {
        let bytes = postcard::to_allocvec(&self.0).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        writer.write_all(&[VERSION])?;
        writer.write_all(&length.to_le_bytes())?;
        writer.write_all(&bytes)?;
        Ok(5 + bytes.len())
    }
}

impl<T: DeserializeOwned> Decode for Record<T> {
    fn decode<R: io::Read>(mut reader: R) -> Result<Self, io::Error> {
        let mut head = [0; 5];
        reader.read_exact(&mut head)?;
        let [version, length @ ..] = head;
        if version != VERSION {
            return Err(invalid(format!("a log record has version {version}, and this program reads up to {VERSION}")));
        }
        let length = u32::from_le_bytes(length);
        if length > LARGEST {
            return Err(invalid(format!("a log record claims to have {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        reader.read_exact(&mut bytes)?;
        postcard::from_bytes(&bytes).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that version 1 wrote. They must stay readable for ever.
    #[test]
    fn version_1_is_read() {
        let mut bytes = Vec::new();
        Record((7u64, "abc".to_string())).encode(&mut bytes).expect("encoded");
        assert_eq!(bytes, [1, 5, 0, 0, 0, 7, 3, b'a', b'b', b'c']);
        assert_eq!(Record::<(u64, String)>::decode(&bytes[..]).expect("decoded").0, (7, "abc".to_string()));
        bytes[0] = 2;
        assert!(Record::<(u64, String)>::decode(&bytes[..]).is_err());
    }
}
