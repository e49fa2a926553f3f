//! What the log has, in memory: where every entry is, and the newest of them themselves.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Ends;
use super::segment::{FOLDER, Record, Scanned, Segment, damaged};
use crate::disk::Disk;
use crate::raft::{Entry, LogId, Vote};
use crate::seal::Keyring;

/// Says which segment is the newest, so that a missing one is missed.
pub(super) const NEWEST: &str = "wal/newest";

/// For how many entries there is room in an answer at first: as many as a busy store has in a few turns of its disk.
const ROOM: usize = 64;

/// Where an entry is on disk.
#[derive(Clone)]
pub(super) struct Place {
    pub segment: Arc<Segment>,
    pub frame: u64,
    pub nth: usize,
}

struct Slot {
    log_id: LogId,
    size: u64,
    entry: Option<Entry>,
    /// None until its frame is durable.
    place: Option<Place>,
}

/// What a read found: the entry, or where it is.
pub(super) enum Found {
    Here(Entry),
    At(LogId, Place),
}

#[derive(Default)]
pub(super) struct Index {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    /// Whether the writer waits for as long as nobody asks it for something.
    pub is_resting: bool,
    purged: Option<LogId>,
    slots: VecDeque<Slot>,
    /// How many of the first slots have no entry in memory.
    evicted: usize,
    cached_bytes: u64,
    /// How many bytes of entries are kept in memory.
    most_cached: u64,
    bytes: u64,
    /// The segments, with the largest index in each.
    segments: BTreeMap<u64, (Arc<Segment>, u64)>,
}

pub(super) fn size_of(entry: &Entry) -> u64 {
    match &entry.payload {
        openraft::EntryPayload::Normal(proposal) => proposal.0.len() as u64 + 32,
        _ => 512,
    }
}

impl Index {
    pub(super) fn ends(&self) -> Ends {
        let last = self.slots.back().map(|slot| slot.log_id).or(self.purged);
        Ends { vote: self.vote, committed: self.committed, purged: self.purged, last }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn key_ids(&self) -> Vec<u32> {
        self.segments.values().map(|(segment, _)| segment.key_id()).collect()
    }

    fn first_index(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.log_id.index)
    }

    fn next_index(&self) -> u64 {
        self.slots.back().map(|slot| slot.log_id).or(self.purged).map_or(0, |log_id| log_id.index + 1)
    }

    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        for entry in entries {
            if self.next_index() != entry.log_id.index {
                return Err(io::Error::other(format!("entry {} does not follow the log's end", entry.log_id)));
            }
            self.push(entry.clone(), None);
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry, place: Option<Place>) {
        let size = size_of(&entry);
        self.cached_bytes += size;
        self.bytes += size;
        self.slots.push_back(Slot { log_id: entry.log_id, size, entry: Some(entry), place });
    }

    pub(super) fn truncate(&mut self, next_index: u64) {
        while self.slots.back().is_some_and(|slot| slot.log_id.index >= next_index) {
            self.drop_slot(VecDeque::pop_back);
        }
        self.evicted = self.evicted.min(self.slots.len());
    }

    pub(super) fn purge(&mut self, purged: LogId) {
        while self.slots.front().is_some_and(|slot| slot.log_id.index <= purged.index) {
            self.drop_slot(VecDeque::pop_front);
            self.evicted = self.evicted.saturating_sub(1);
        }
        self.purged = self.purged.max(Some(purged));
    }

    fn drop_slot(&mut self, pop: impl FnOnce(&mut VecDeque<Slot>) -> Option<Slot>) {
        let Some(slot) = pop(&mut self.slots) else { return };
        self.bytes -= slot.size;
        if slot.entry.is_some() {
            self.cached_bytes -= slot.size;
        }
    }

    /// Notes that an entry is durable at `place`; it may have been truncated since.
    pub(super) fn place(&mut self, log_id: LogId, place: Place) {
        if let Some((_, last)) = self.segments.get_mut(&place.segment.number) {
            *last = (*last).max(log_id.index);
        }
        let Some(first) = self.first_index() else { return };
        let slot = log_id.index.checked_sub(first).and_then(|nth| self.slots.get_mut(usize::try_from(nth).ok()?));
        if let Some(slot) = slot.filter(|slot| slot.log_id == log_id) {
            slot.place = Some(place);
        }
        self.evict();
    }

    /// Lets the oldest entries in memory go, as far as they are durable.
    fn evict(&mut self) {
        while self.cached_bytes > self.most_cached {
            let Some(slot) = self.slots.get_mut(self.evicted).filter(|slot| slot.place.is_some()) else { return };
            if slot.entry.take().is_some() {
                self.cached_bytes -= slot.size;
            }
            self.evicted += 1;
        }
    }

    pub(super) fn find(&self, indices: RangeInclusive<u64>, bytes: u64) -> Vec<Found> {
        let Some(first) = self.first_index() else { return Vec::new() };
        let start = usize::try_from(indices.start().saturating_sub(first)).unwrap_or(usize::MAX);
        let slots = self.slots.iter().skip(start).take_while(|slot| indices.contains(&slot.log_id.index));
        let (mut total, mut all) = (0, Vec::with_capacity(ROOM));
        let within = slots.enumerate().take_while(|(nth, slot)| {
            total += slot.size;
            // The first one is always given, or replication would stand still.
            *nth == 0 || total <= bytes
        });
        all.extend(within.filter_map(|(_, slot)| match (&slot.entry, &slot.place) {
            (Some(entry), _) => Some(Found::Here(entry.clone())),
            (None, Some(place)) => Some(Found::At(slot.log_id, place.clone())),
            // Only entries with a place are let go.
            (None, None) => None,
        }));
        all
    }

    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        self.segments.insert(segment.number, (segment, 0));
    }

    /// Forgets the oldest segments that hold nothing but what is purged; answers their numbers.
    pub(super) fn drop_segments(&mut self, purged: u64) -> Vec<u64> {
        let mut dropped = Vec::new();
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.first_entry().filter(|oldest| oldest.get().1 <= purged)
        {
            dropped.push(oldest.remove_entry().0);
        }
        dropped
    }

    /// Takes over what a segment says.
    fn replay(&mut self, record: Record, place: Place) -> Result<(), String> {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(committed) => self.committed = Some(committed),
            Record::Truncated(next_index) => self.truncate(next_index),
            Record::Purged(purged) => self.purge(purged),
            Record::Checkpoint { vote, purged, committed } => {
                if let Some(purged) = purged {
                    self.purge(purged);
                }
                (self.vote, self.committed) = (vote.or(self.vote), committed.or(self.committed));
            }
            Record::Entry(entry) => {
                if self.purged.is_some_and(|purged| entry.log_id.index <= purged.index) {
                    return Ok(());
                }
                // What the first segments say may be purged by a later one.
                if !self.slots.is_empty() && self.next_index() != entry.log_id.index {
                    return Err(format!("entry {} is missing", self.next_index()));
                }
                let log_id = entry.log_id;
                self.push(entry, None);
                self.place(log_id, place);
            }
            Record::Closed => {}
        }
        Ok(())
    }
}

/// Reads what has to be read. Entries of one frame are read together.
pub(super) fn resolve(found: Vec<Found>) -> io::Result<Vec<Entry>> {
    let mut frame: Option<(Place, Vec<Record>)> = None;
    let mut entries = Vec::with_capacity(found.len());
    for found in found {
        match found {
            Found::Here(entry) => entries.push(entry),
            Found::At(log_id, place) => {
                let is_same = frame
                    .as_ref()
                    .is_some_and(|(last, _)| last.frame == place.frame && last.segment.number == place.segment.number);
                if !is_same {
                    frame = Some((place.clone(), place.segment.read(place.frame)?));
                }
                match frame.as_ref().and_then(|(_, records)| records.get(place.nth)) {
                    Some(Record::Entry(entry)) if entry.log_id == log_id => entries.push(entry.clone()),
                    _ => return Err(damaged(&Segment::name(place.segment.number), format_args!("{log_id} is gone"))),
                }
            }
        }
    }
    Ok(entries)
}

/// Reads all segments; answers the number that the next one gets.
pub(super) fn load(disk: &dyn Disk, keys: &Keyring, most_cached: u64) -> io::Result<(Index, u64)> {
    let mut numbers: Vec<u64> =
        disk.list(FOLDER)?.iter().filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect();
    numbers.sort_unstable();
    if numbers.is_empty() && disk.list("")?.iter().any(|name| name == "log") {
        return Err(damaged("log", "this is the log of an earlier version of Shoal, which this version does not read"));
    }
    let newest = newest(disk)?;
    let expected =
        numbers.first().map_or(newest..=newest, |first| *first..=newest.max(*numbers.last().unwrap_or(first)));
    if newest > 0 && !expected.clone().eq(numbers.iter().copied()) {
        let missing = expected.clone().find(|number| !numbers.contains(number)).unwrap_or(newest);
        return Err(damaged(&Segment::name(missing), "the file is missing"));
    }
    let mut index = Index { most_cached, ..Index::default() };
    if let Some(last) = numbers.last().copied().filter(|last| *last > newest)
        && !is_begun(disk, keys, last)?
    {
        // It was being made when the power went, and nothing is in it.
        disk.remove(&Segment::name(last))?;
        numbers.pop();
    }
    for number in &numbers {
        let is_last = Some(number) == numbers.last();
        let name = Segment::name(*number);
        let Some((segment, scanned)) = Segment::scan(disk, keys, *number)? else {
            return Err(damaged(&name, "its head is damaged"));
        };
        if !has_checkpoint(&scanned) || (scanned.is_torn && !is_last) {
            return Err(damaged(&name, format_args!("it is damaged from {} on", scanned.end)));
        }
        if is_last {
            // No one was told of what is torn; and the room that was kept for more is not needed any longer.
            segment.file.set_size(scanned.end)?;
            segment.file.sync()?;
        }
        let segment = Arc::new(segment);
        index.add_segment(segment.clone());
        for (frame, records) in scanned.frames {
            for (nth, record) in records.into_iter().enumerate() {
                let place = Place { segment: segment.clone(), frame, nth };
                index.replay(record, place).map_err(|error| damaged(&name, error))?;
            }
        }
    }
    if let Some(first) = index.first_index() {
        let expected = index.purged.map_or(0, |purged| purged.index + 1);
        if first != expected {
            let name = numbers.first().map_or_else(|| FOLDER.to_string(), |number| Segment::name(*number));
            return Err(damaged(&name, format_args!("entry {expected}, which stood in a file before it, is missing")));
        }
    }
    let next = numbers.last().copied().unwrap_or_default().max(newest) + 1;
    Ok((index, next))
}

/// Whether a segment has its head and its first frame.
fn is_begun(disk: &dyn Disk, keys: &Keyring, number: u64) -> io::Result<bool> {
    Ok(Segment::scan(disk, keys, number)?.is_some_and(|(_, scanned)| has_checkpoint(&scanned)))
}

fn has_checkpoint(scanned: &Scanned) -> bool {
    matches!(scanned.frames.first(), Some((_, records)) if matches!(records[..], [Record::Checkpoint { .. }, ..]))
}

/// The number of the newest segment that was made, 0 for none.
fn newest(disk: &dyn Disk) -> io::Result<u64> {
    if !disk.list(FOLDER)?.iter().any(|name| NEWEST.ends_with(&format!("/{name}"))) {
        return Ok(0);
    }
    let text = crate::disk::read_all(disk, NEWEST)?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| damaged(NEWEST, "it is damaged"))
}
