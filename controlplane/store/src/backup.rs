//! Backups: everything that is replicated, as one file that is sealed, checksummed, and read without a cluster.
//!
//! Layout: `SHOALBK1`; the head's length (u32, little endian); the head (JSON: when and what, and the backup's own key, sealed with
//! the cluster's key and, when there is one, with a passphrase); then pieces (see `pieces`) sealed with the backup's own key: the
//! sha256 of the head, and the image's chunks; last the sha256 of all that. What a passphrase alone opens (the CA and the
//! cluster's keys) is in the head, sealed with it.

use std::io::{self, Read};

use ring::digest;
use serde::{Deserialize, Serialize};
use shoal_state::{Chunks, Image, ImageReader};

use crate::pieces::{PieceReader, PieceWriter};
use crate::seal::{self, Keyring, SealError};

const MAGIC: &[u8; 8] = b"SHOALBK1";

/// The version of the head that is written now.
const VERSION: u32 = 1;

/// What the pieces, the backup's own key and the secrets are sealed for.
const PIECES: &str = "shoal backup";
const KEY: &str = "shoal backup key";
const SECRETS: &str = "shoal backup secrets";

/// The largest head, in bytes.
const LARGEST_HEAD: usize = 1 << 20;

/// What can be known of a backup without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    version: u32,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The revision of the state.
    pub revision: u64,
    /// How many keys there are.
    pub keys: u64,
    /// The feature level of the cluster.
    pub feature_level: u32,
    /// The id of the cluster's key with which it can be opened.
    pub cluster_key: u32,
    /// The backup's own key, sealed with the cluster's; hexadecimal.
    own_key: String,
    passphrase: Option<ByPassphrase>,
}

/// What a passphrase opens; hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ByPassphrase {
    salt: String,
    own_key: String,
    secrets: String,
}

impl Head {
    /// Whether a passphrase opens it, and it has the CA and the cluster's keys.
    pub fn has_secrets(&self) -> bool {
        self.passphrase.is_some()
    }
}

/// A backup cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no backup, or of another version.
    #[error("this is no backup that this version of Shoal reads: {0}")]
    Format(String),
    /// It is damaged.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The key does not fit.
    #[error("the backup cannot be opened: {0}")]
    Sealed(String),
}

/// What opens a backup.
#[derive(Debug, Clone)]
pub enum Opening {
    /// The passphrase that it was made with.
    Passphrase(String),
    /// The keys of the cluster that it was made in.
    Keys(Keyring),
}

/// A backup that was opened.
#[derive(Debug)]
pub struct Backup {
    /// When and what.
    pub head: Head,
    /// The state.
    pub image: Image,
    /// What was given as secrets, when the passphrase opened it.
    pub secrets: Option<Vec<u8>>,
}

/// Begins a backup of `image`; the bytes of the file come from the answer, part by part. With a passphrase it also holds
/// `secrets`. Takes a fraction of a second when there is a passphrase.
///
/// # Errors
/// [`BackupError::Sealed`] when the system gives no randomness.
pub fn create(
    image: Image,
    created: String,
    cluster: &Keyring,
    passphrase: Option<(&str, &[u8])>,
) -> Result<BackupStream, BackupError> {
    let sealed = |error: SealError| BackupError::Sealed(error.to_string());
    let own = Keyring::generate().map_err(sealed)?;
    let own_text = own.render();
    let by_passphrase = |(passphrase, secrets): (&str, &[u8])| {
        let salt = seal::random()?;
        let ring = seal::passphrase_ring(passphrase, &salt);
        Ok(ByPassphrase {
            salt: hex::encode(salt),
            own_key: hex::encode(ring.seal(KEY, own_text.as_bytes())?),
            secrets: hex::encode(ring.seal(SECRETS, secrets)?),
        })
    };
    let head = Head {
        version: VERSION,
        created,
        revision: image.revision().0,
        keys: image.len() as u64,
        feature_level: image.feature_level(),
        cluster_key: cluster.active(),
        own_key: hex::encode(cluster.seal(KEY, own_text.as_bytes()).map_err(sealed)?),
        passphrase: passphrase.map(by_passphrase).transpose().map_err(sealed)?,
    };
    let head = serde_json::to_vec(&head).map_err(io::Error::other)?;
    let mut begun = MAGIC.to_vec();
    begun.extend_from_slice(&u32::try_from(head.len()).map_err(io::Error::other)?.to_le_bytes());
    begun.extend_from_slice(&head);
    let mut pieces = PieceWriter::new(begun, &own, PIECES)?;
    pieces.write(sha256(&head).as_ref())?;
    Ok(BackupStream { pieces, chunks: Some(image.chunks()), sum: digest::Context::new(&digest::SHA256) })
}

/// The bytes of a backup.
pub struct BackupStream {
    pieces: PieceWriter<Vec<u8>>,
    /// None after the end.
    chunks: Option<Chunks>,
    sum: digest::Context,
}

impl Iterator for BackupStream {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        let chunks = self.chunks.as_mut()?;
        let chunk = chunks.next();
        if let Some(Err(error)) = chunk.as_ref().map(|chunk| self.pieces.write(chunk)) {
            self.chunks = None;
            return Some(Err(error));
        }
        let mut bytes = self.pieces.take();
        self.sum.update(&bytes);
        if chunk.is_none() {
            self.chunks = None;
            bytes.extend_from_slice(self.sum.clone().finish().as_ref());
        }
        Some(Ok(bytes))
    }
}

/// Reads a backup to its end, and checks everything. Without an `opening` only that it is whole.
///
/// # Errors
/// [`BackupError`].
pub fn read(mut input: impl Read, opening: Option<&Opening>) -> Result<(Head, Option<Backup>), BackupError> {
    let mut input = Summed { inner: &mut input, sum: digest::Context::new(&digest::SHA256), held: Vec::new() };
    let (head, text) = read_head(&mut input)?;
    let opened = match opening {
        None => {
            io::copy(&mut input, &mut io::sink())?;
            None
        }
        Some(opening) => Some(open(&head, &text, opening, &mut input)?),
    };
    input.check()?;
    Ok((head, opened))
}

fn read_head(input: &mut impl Read) -> Result<(Head, Vec<u8>), BackupError> {
    let format = |what: &dyn std::fmt::Display| BackupError::Format(what.to_string());
    let mut start = [0; 12];
    input.read_exact(&mut start).map_err(|_| format(&"it is too short"))?;
    if !start.starts_with(MAGIC) {
        return Err(format(&"it does not begin as one"));
    }
    let length = u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize;
    if length > LARGEST_HEAD {
        return Err(BackupError::Damaged(format!("its head claims to have {length} bytes")));
    }
    let mut text = vec![0; length];
    input.read_exact(&mut text).map_err(|_| BackupError::Damaged("it is cut off".to_string()))?;
    let head: Head = serde_json::from_slice(&text).map_err(|error| BackupError::Damaged(error.to_string()))?;
    if head.version != VERSION {
        return Err(format(&format_args!("it has version {}, and {VERSION} is known", head.version)));
    }
    Ok((head, text))
}

fn open(head: &Head, text: &[u8], opening: &Opening, input: &mut impl Read) -> Result<Backup, BackupError> {
    let sealed = |error: &dyn std::fmt::Display| BackupError::Sealed(error.to_string());
    let unhex = |text: &str| hex::decode(text).map_err(|error| BackupError::Damaged(error.to_string()));
    let (own_key, secrets) = match opening {
        Opening::Keys(keys) => {
            (keys.open(KEY, &unhex(&head.own_key)?).map_err(|error| sealed(&format_args!("its key: {error}")))?, None)
        }
        Opening::Passphrase(passphrase) => {
            let by = head.passphrase.as_ref().ok_or_else(|| sealed(&"it was made without a passphrase"))?;
            let salt = unhex(&by.salt)?.try_into().map_err(|_| BackupError::Damaged("its salt is cut".to_string()))?;
            let ring = seal::passphrase_ring(passphrase, &salt);
            let own = ring.open(KEY, &unhex(&by.own_key)?).map_err(|_| sealed(&"the passphrase is wrong"))?;
            let secrets = ring.open(SECRETS, &unhex(&by.secrets)?).map_err(|error| sealed(&error))?;
            (own, Some(secrets))
        }
    };
    let own_key = String::from_utf8(own_key).map_err(|error| sealed(&error))?;
    let own = Keyring::parse(&own_key).map_err(|error| sealed(&error))?;
    let damaged = |error: &dyn std::fmt::Display| BackupError::Damaged(error.to_string());
    let mut pieces = PieceReader::new(input, &own, PIECES).map_err(|error| damaged(&error))?;
    if pieces.read().map_err(|error| damaged(&error))? != sha256(text).as_ref() {
        return Err(damaged(&"its head was changed"));
    }
    let mut image = ImageReader::default();
    while !image.is_whole() {
        let chunk = pieces.read().map_err(|error| damaged(&error))?;
        image.take(&chunk).map_err(|error| damaged(&error))?;
    }
    let image = image.finish().map_err(|error| damaged(&error))?;
    Ok(Backup { head: head.clone(), image, secrets })
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

/// A reader that knows the checksum of what it gave, and holds back the last 32 bytes, which are the one it should be.
struct Summed<'a, R> {
    inner: &'a mut R,
    sum: digest::Context,
    held: Vec<u8>,
}

const SUM: usize = digest::SHA256_OUTPUT_LEN;

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.held.len() < SUM + bytes.len() {
            let before = self.held.len();
            self.held.resize(SUM + bytes.len(), 0);
            let read = self.inner.read(&mut self.held[before..]);
            self.held.truncate(before + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                break;
            }
        }
        let given = self.held.len().saturating_sub(SUM).min(bytes.len());
        bytes[..given].copy_from_slice(&self.held[..given]);
        self.sum.update(&bytes[..given]);
        self.held.drain(..given);
        Ok(given)
    }
}

impl<R: Read> Summed<'_, R> {
    fn check(mut self) -> Result<(), BackupError> {
        let mut more = [0];
        if self.read(&mut more)? > 0 {
            return Err(BackupError::Damaged("something follows its end".to_string()));
        }
        if self.held != self.sum.finish().as_ref() {
            return Err(BackupError::Damaged("its checksum is wrong".to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_state::{Command, State, Transaction};

    fn image() -> Image {
        let mut state = State::new();
        for number in 0..2_000 {
            let mut transaction = Transaction::default();
            transaction.put(
                format!("/registry/core/secrets/default/{number}"),
                format!("a well known secret {number}").repeat(30),
            );
            state.apply(Command::Transaction(transaction));
        }
        state.image()
    }

    fn made(cluster: &Keyring, passphrase: Option<(&str, &[u8])>) -> Vec<u8> {
        let stream = create(image(), "2026-01-02T03:04:05Z".to_string(), cluster, passphrase).expect("begun");
        let parts: Vec<Vec<u8>> = stream.map(|part| part.expect("a part")).collect();
        assert!(parts.len() > 2, "it is streamed");
        parts.concat()
    }

    #[test]
    fn a_backup_comes_back_by_the_keys_and_by_the_passphrase() {
        let cluster = Keyring::generate().expect("a ring");
        let bytes = made(&cluster, Some(("correct horse", b"the CA")));
        for secret in [&b"well known"[..], b"the CA"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
        cluster.adopt(&cluster.rotated().expect("rotated"));
        let keys = Opening::Keys(cluster.clone());
        let passphrase = Opening::Passphrase("correct horse".to_string());
        for (opening, secrets) in [(keys, None), (passphrase, Some(b"the CA".to_vec()))] {
            let (head, backup) = read(&bytes[..], Some(&opening)).expect("read");
            let backup = backup.expect("opened");
            assert!(backup.image.chunks().eq(image().chunks()));
            assert_eq!((head.revision, head.keys, backup.secrets), (2_000, 2_000, secrets));
        }
        let (head, nothing) = read(&bytes[..], None).expect("it is whole");
        assert!(nothing.is_none() && head.has_secrets());
    }

    #[test]
    fn what_does_not_open_it_is_told() {
        let cluster = Keyring::generate().expect("a ring");
        let with = made(&cluster, Some(("correct horse", b"the CA")));
        let without = made(&cluster, None);
        let error =
            |bytes: &[u8], opening: Opening| read(bytes, Some(&opening)).map(drop).expect_err("refused").to_string();
        assert!(error(&with, Opening::Passphrase("battery".to_string())).contains("passphrase is wrong"));
        assert!(error(&without, Opening::Passphrase("correct horse".to_string())).contains("without a passphrase"));
        assert!(error(&without, Opening::Keys(Keyring::generate().expect("a ring"))).contains("another key"));
        assert!(read(&b"something else entirely"[..], None).is_err());
    }

    #[test]
    fn damage_anywhere_is_seen_with_a_key_and_without() {
        let cluster = Keyring::generate().expect("a ring");
        let bytes = made(&cluster, None);
        let opening = Opening::Keys(cluster);
        for place in (0..bytes.len()).step_by(bytes.len() / 60).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert!(read(&damaged[..], Some(&opening)).is_err(), "byte {place}");
            assert!(read(&damaged[..], None).is_err(), "byte {place}");
        }
        for length in (0..bytes.len()).step_by(bytes.len() / 20) {
            assert!(read(&bytes[..length], Some(&opening)).is_err(), "cut at {length}");
            assert!(read(&bytes[..length], None).is_err(), "cut at {length}");
        }
        let longer = [&bytes[..], b"more"].concat();
        assert!(read(&longer[..], Some(&opening)).is_err());
    }
}
