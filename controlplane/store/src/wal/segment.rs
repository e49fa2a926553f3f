//! One file of the log: a head, then frames, each written at once and synced before the next.
//!
//! Head (64 bytes): `SHOALWL1`; the segment's number (u64); the seal's head; a checksum; zeros. A frame: `FRAM`; the length of what
//! is sealed (u32); a checksum (CRC-32 of the segment's number, the frame's place, the length and what is sealed); what is sealed;
//! zeros up to the next multiple of eight. All numbers are little endian. After the last frame there are zeros or the end.
//!
//! Because a frame is only written when the one before it is on stable storage, a damaged frame with a whole one after it has
//! been damaged; one with nothing after it was being written when the power went, and nobody was told of it.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, DiskFile};
use crate::raft::{Entry, LogId, Vote};
use crate::seal::{HEAD, Keyring, Sealer, TAG};

const MAGIC: &[u8; 8] = b"SHOALWL1";
const FRAME: &[u8; 4] = b"FRAM";

/// Where the first frame begins.
pub(crate) const START: u64 = 64;

/// The length of a frame's own head.
const FRAME_HEAD: usize = 12;

/// The version of a frame's content that is written now; every version that was ever written stays readable.
const VERSION: u8 = 1;

/// What its files are sealed for.
const PURPOSE: &str = "shoal log";

/// The folder of the segments.
pub(crate) const FOLDER: &str = "wal";

/// What the log consists of. The variants' order is part of the format: new ones come last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    Vote(Vote),
    Entry(Entry),
    /// The entries from this index on are gone.
    Truncated(u64),
    /// The entries up to this one are gone.
    Purged(LogId),
    Committed(LogId),
    /// What is known from earlier segments, which may be gone: the first record of every segment.
    Checkpoint {
        vote: Option<Vote>,
        purged: Option<LogId>,
        committed: Option<LogId>,
    },
    /// The log was closed in order.
    Closed,
}

/// A file of the log that is open.
pub(crate) struct Segment {
    pub number: u64,
    pub file: Arc<dyn DiskFile>,
    sealer: Sealer,
}

/// What a scan of a segment found.
pub(crate) struct Scanned {
    /// Each frame's place and records.
    pub frames: Vec<(u64, Vec<Record>)>,
    /// Where the last whole frame ends.
    pub end: u64,
    /// Whether something that is no frame follows.
    pub is_torn: bool,
}

/// Why a segment cannot be read.
pub(crate) fn damaged(name: &str, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {what}"))
}

impl Segment {
    pub(crate) fn name(number: u64) -> String {
        format!("{FOLDER}/{number:020}.wal")
    }

    /// A new segment with room for `size` bytes, not yet synced.
    pub(crate) fn create(disk: &dyn Disk, keys: &Keyring, number: u64, size: u64) -> io::Result<Self> {
        let sealer = keys.sealer(PURPOSE).map_err(io::Error::other)?;
        let file = disk.create(&Self::name(number), size)?;
        let mut head = [0; START as usize];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&number.to_le_bytes());
        head[16..16 + HEAD].copy_from_slice(&sealer.head());
        let sum = crc32fast::hash(&head[..16 + HEAD]).to_le_bytes();
        head[16 + HEAD..20 + HEAD].copy_from_slice(&sum);
        file.write_at(0, &head)?;
        Ok(Self { number, file, sealer })
    }

    /// Opens a segment and reads all of it. `Ok(None)` when it never got its head, which is no damage in the last one.
    pub(crate) fn scan(disk: &dyn Disk, keys: &Keyring, number: u64) -> io::Result<Option<(Self, Scanned)>> {
        let name = Self::name(number);
        let content = crate::disk::read_all(disk, &name)?;
        let Some(head) = content.get(..START as usize).filter(|head| head.starts_with(MAGIC)) else { return Ok(None) };
        let sum: [u8; 4] = head[16 + HEAD..20 + HEAD].try_into().expect("four bytes");
        if crc32fast::hash(&head[..16 + HEAD]).to_le_bytes() != sum || head[8..16] != number.to_le_bytes() {
            return Ok(None);
        }
        let seal: &[u8; HEAD] = head[16..16 + HEAD].try_into().expect("a head");
        let sealer = keys.opener(PURPOSE, seal).map_err(|error| damaged(&name, error))?;
        let segment = Self { number, file: disk.open(&name)?, sealer };
        let scanned = segment.frames(&name, &content)?;
        Ok(Some((segment, scanned)))
    }

    fn frames(&self, name: &str, content: &[u8]) -> io::Result<Scanned> {
        let mut scanned = Scanned { frames: Vec::new(), end: START, is_torn: false };
        loop {
            let rest = usize::try_from(scanned.end).ok().and_then(|end| content.get(end..)).unwrap_or_default();
            if rest.iter().take(FRAME_HEAD).all(|byte| *byte == 0) {
                // Zeros follow the last frame, unless the head of a frame is gone.
                return self
                    .whole_frame_after(content, scanned.end)
                    .map_or(Ok(scanned), |later| Err(lost(name, later)));
            }
            let Some(length) = self.whole_frame(rest, scanned.end) else {
                scanned.is_torn = true;
                return self
                    .whole_frame_after(content, scanned.end + 8)
                    .map_or(Ok(scanned), |later| Err(lost(name, later)));
            };
            let records = self.records(scanned.end, &rest[FRAME_HEAD..FRAME_HEAD + length]);
            scanned.frames.push((scanned.end, records.map_err(|error| damaged(name, error))?));
            scanned.end += framed(length);
        }
    }

    /// The length of what is sealed in the frame that `bytes` begin with, if it is whole.
    fn whole_frame(&self, bytes: &[u8], place: u64) -> Option<usize> {
        let rest = bytes.strip_prefix(FRAME)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let sealed = rest.get(..u32::from_le_bytes(*length) as usize)?;
        (checksum(self.number, place, sealed) == u32::from_le_bytes(*sum)).then_some(sealed.len())
    }

    /// The place of the next whole frame from `place` on.
    fn whole_frame_after(&self, content: &[u8], place: u64) -> Option<u64> {
        let places = (place.next_multiple_of(8)..content.len() as u64).step_by(8);
        places.into_iter().find(|place| {
            usize::try_from(*place).is_ok_and(|start| self.whole_frame(&content[start..], *place).is_some())
        })
    }

    fn records(&self, place: u64, sealed: &[u8]) -> Result<Vec<Record>, String> {
        let mut sealed = sealed.to_vec();
        let plain = self.sealer.open(place, &[], &mut sealed).map_err(|error| error.to_string())?;
        let (version, mut rest) = plain.split_first().ok_or("an empty frame")?;
        if *version != VERSION {
            return Err(format!("a frame has version {version}, and this program reads up to {VERSION}"));
        }
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (record, more) = postcard::take_from_bytes(rest).map_err(|error| error.to_string())?;
            records.push(record);
            rest = more;
        }
        Ok(records)
    }

    /// Writes `records` as the frame at `place`, unsynced; answers where the next one begins.
    pub(crate) fn write(&self, place: u64, records: &[Record]) -> io::Result<u64> {
        let frame = self.frame(place, records)?;
        self.file.write_at(place, &frame)?;
        Ok(place + frame.len() as u64)
    }

    fn frame(&self, place: u64, records: &[Record]) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; FRAME_HEAD];
        frame.push(VERSION);
        for record in records {
            frame = postcard::to_extend(record, frame).map_err(io::Error::other)?;
        }
        self.sealer.seal(place, &[], &mut frame, FRAME_HEAD);
        let length = u32::try_from(frame.len() - FRAME_HEAD).map_err(io::Error::other)?;
        let sum = checksum(self.number, place, &frame[FRAME_HEAD..]);
        frame[..4].copy_from_slice(FRAME);
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        frame[8..12].copy_from_slice(&sum.to_le_bytes());
        frame.resize(frame.len().next_multiple_of(8), 0);
        Ok(frame)
    }

    /// The records of the frame at `place`.
    pub(crate) fn read(&self, place: u64) -> io::Result<Vec<Record>> {
        let name = Self::name(self.number);
        let mut head = [0; FRAME_HEAD];
        self.file.read_at(place, &mut head)?;
        let length = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        if u64::try_from(length).map_err(io::Error::other)? > self.file.size()? {
            return Err(damaged(&name, format_args!("the frame at {place} has lost its length")));
        }
        let mut frame = vec![0; FRAME_HEAD + length];
        self.file.read_at(place, &mut frame)?;
        if self.whole_frame(&frame, place).is_none() {
            return Err(damaged(&name, format_args!("the frame at {place} is damaged")));
        }
        self.records(place, &frame[FRAME_HEAD..]).map_err(|error| damaged(&name, error))
    }

    /// The id of the key that it is sealed with.
    pub(crate) fn key_id(&self) -> u32 {
        self.sealer.key_id()
    }
}

/// How many bytes a frame of these records takes at most.
pub(crate) fn room_for(bytes: u64) -> u64 {
    framed(usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(1 + TAG))
}

fn framed(sealed: usize) -> u64 {
    ((FRAME_HEAD + sealed) as u64).next_multiple_of(8)
}

fn checksum(number: u64, place: u64, sealed: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(&place.to_le_bytes());
    sum.update(&(sealed.len() as u64).to_le_bytes());
    sum.update(sealed);
    sum.finalize()
}

fn lost(name: &str, later: u64) -> io::Error {
    damaged(name, format_args!("what stands before the frame at {later} is damaged, and was on stable storage once"))
}
