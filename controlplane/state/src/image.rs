//! Everything that is replicated, as a stream of chunks: what snapshots and backups hold.
//!
//! A chunk is a version byte and postcard, and can be read by itself; the first is the head, the last one says how many entries
//! there were, so that a stream that was cut off is seen. The same commands give the same chunks on every server.

use std::ops::Bound;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::codec::{self, FormatError};
use crate::command::{Entry, Key, Revision};
use crate::state::State;

/// The version of a chunk that is written now.
pub(crate) const VERSION: u8 = 2;

/// How many bytes of keys and values make a chunk full. One entry may be larger, up to [`crate::limits::VALUE_BYTES`].
const CHUNK_BYTES: usize = 512 << 10;

/// The replicated part of a state, unchanging. It shares its memory with the live one.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub(crate) entries: OrdMap<Key, Entry>,
    pub(crate) revision: Revision,
    pub(crate) last_member: u64,
    pub(crate) feature_level: u32,
}

/// The variants' order is part of the format: new ones come last.
#[derive(Debug, Serialize, Deserialize)]
enum Chunk {
    Head { revision: Revision, last_member: u64, feature_level: u32 },
    Entries(Vec<(Key, Entry)>),
    End { entries: u64 },
}

impl Image {
    /// The revision that this is the state of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What may be written; see [`crate::Command::RaiseFeatureLevel`].
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// The last member id that was given.
    pub fn last_member(&self) -> u64 {
        self.last_member
    }

    /// The keys and what they have, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// The same entries at a later revision, and with member ids used up to `last_member`: for a restored cluster, which must not
    /// use again what clients and servers of the former one have seen.
    #[must_use]
    pub fn raised(mut self, revision: Revision, last_member: u64) -> Self {
        self.revision = self.revision.max(revision);
        self.last_member = self.last_member.max(last_member);
        self
    }

    /// The chunks, made one by one.
    pub fn chunks(self) -> Chunks {
        Chunks { image: self, next: Next::Head }
    }
}

/// The chunks of an image.
#[derive(Debug)]
pub struct Chunks {
    image: Image,
    next: Next,
}

#[derive(Debug)]
enum Next {
    Head,
    After(Option<Key>),
    Nothing,
}

impl Iterator for Chunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let chunk = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Head => {
                self.next = Next::After(None);
                let Image { revision, last_member, feature_level, .. } = self.image;
                Chunk::Head { revision, last_member, feature_level }
            }
            Next::After(last) => {
                let start = last.map_or(Bound::Unbounded, Bound::Excluded);
                let mut bytes = 0;
                let entries = self.image.entries.range((start, Bound::Unbounded)).take_while(|(key, entry)| {
                    let is_room = bytes < CHUNK_BYTES;
                    bytes += key.len() + entry.value.len();
                    is_room
                });
                let entries: Vec<(Key, Entry)> = entries.map(|(key, entry)| (key.clone(), entry.clone())).collect();
                match entries.last() {
                    Some((last, _)) => {
                        self.next = Next::After(Some(last.clone()));
                        Chunk::Entries(entries)
                    }
                    None => Chunk::End { entries: self.image.entries.len() as u64 },
                }
            }
            Next::Nothing => return None,
        };
        Some(codec::encode(VERSION, &chunk))
    }
}

/// Puts an image together from its chunks.
#[derive(Debug, Default)]
pub struct ImageReader {
    image: Image,
    has_head: bool,
    is_whole: bool,
}

impl ImageReader {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`FormatError`]: the chunk is damaged, of a later version, or out of its place.
    pub fn take(&mut self, chunk: &[u8]) -> Result<(), FormatError> {
        let misplaced = |what: &str| Err(FormatError::Damaged(what.to_string()));
        if self.is_whole {
            return misplaced("something follows its end");
        }
        match codec::decode(VERSION, chunk)? {
            Chunk::Head { .. } if self.has_head => return misplaced("it has two heads"),
            Chunk::Head { revision, last_member, feature_level } => {
                self.has_head = true;
                (self.image.revision, self.image.last_member) = (revision, last_member);
                self.image.feature_level = feature_level;
            }
            _ if !self.has_head => return misplaced("its head is missing"),
            Chunk::Entries(entries) => self.image.entries.extend(entries),
            Chunk::End { entries } if entries != self.image.entries.len() as u64 => {
                return misplaced("some of its entries are missing");
            }
            Chunk::End { .. } => self.is_whole = true,
        }
        Ok(())
    }

    /// Whether the last chunk was taken.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The image, once its last chunk was taken.
    ///
    /// # Errors
    /// [`FormatError`] when it is cut off.
    pub fn finish(self) -> Result<Image, FormatError> {
        if self.is_whole { Ok(self.image) } else { Err(FormatError::Damaged("it is cut off".to_string())) }
    }
}

impl From<Image> for State {
    fn from(image: Image) -> Self {
        Self::of(image)
    }
}
