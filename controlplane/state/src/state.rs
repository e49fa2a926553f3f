//! The state machine itself: applying commands, and the recent history that watches are fed from.

use std::collections::VecDeque;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::command::{Command, Entry, Key, Outcome, Precondition, Revision, Transaction, UnixSeconds, Write};
use crate::image::Image;
use crate::limits::{self, History};
use crate::view::View;

/// One key's change at one revision: what a watch is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// The revision that changed it.
    pub revision: Revision,
    /// Its value now; none when it was deleted.
    pub current: Option<Bytes>,
    /// Its value before; none when it had none.
    pub previous: Option<Bytes>,
    /// Whether the key had no value before.
    pub created: bool,
}

/// A change, and what would undo it.
#[derive(Debug, Clone)]
struct Record {
    change: Change,
    before: Option<Entry>,
}

impl Record {
    /// What the history counts for it, in bytes.
    fn size(&self) -> u64 {
        size_of(&self.change.key, self.change.previous.as_ref().map_or(0, Bytes::len))
    }
}

/// The replicated state, and this server's window of history.
///
/// The history is not replicated: a server that has just started has less of it, and says so by what is compacted.
#[derive(Debug, Clone, Default)]
pub struct State {
    entries: OrdMap<Key, Entry>,
    /// The keys that go away by themselves, the next one first.
    expiries: OrdSet<(UnixSeconds, Key)>,
    revision: Revision,
    last_member: u64,
    feature_level: u32,
    size: u64,
    compacted: Revision,
    kept: History,
    history: VecDeque<Record>,
    history_bytes: u64,
}

/// An earlier state, to be made; see [`State::look_back`].
#[derive(Debug)]
pub struct LookBack {
    /// The present entries under the earlier revision.
    view: View,
    /// What keys had before each change since, the last change first.
    undo: Vec<(Key, Option<Entry>)>,
}

impl LookBack {
    /// The state as it was.
    pub fn view(self) -> View {
        let mut view = self.view;
        for (key, before) in self.undo {
            match before {
                Some(entry) => view.entries.insert(key, entry),
                None => view.entries.remove(&key),
            };
        }
        view
    }
}

impl State {
    /// Nothing, at revision 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same state with another window of history.
    #[must_use]
    pub fn keeping(mut self, kept: History) -> Self {
        self.kept = kept;
        self.trim();
        self
    }

    /// The state of an image; everything up to its revision is compacted.
    pub fn of(image: Image) -> Self {
        let size = image.entries.iter().map(|(key, entry)| size_of(key, entry.value.len())).sum();
        let expiring = |(key, entry): (&Key, &Entry)| Some((entry.expires?, key.clone()));
        Self {
            expiries: image.entries.iter().filter_map(expiring).collect(),
            entries: image.entries,
            revision: image.revision,
            last_member: image.last_member,
            feature_level: image.feature_level,
            size,
            compacted: image.revision,
            ..Self::default()
        }
    }

    /// Everything that is replicated, as it is now.
    pub fn image(&self) -> Image {
        Image {
            entries: self.entries.clone(),
            revision: self.revision,
            last_member: self.last_member,
            feature_level: self.feature_level,
        }
    }

    /// Carries out one command; answers what became of it and which keys changed.
    ///
    /// The changes of a transaction share one revision, in the order of the writes, one a key.
    pub fn apply(&mut self, command: Command) -> (Outcome, Vec<Change>) {
        match command {
            Command::Transaction(transaction) => self.transact(transaction),
            Command::AllocateMember => {
                self.last_member += 1;
                (Outcome::Member(self.last_member), Vec::new())
            }
            Command::Expire { now } => {
                let changes = self.expire(now);
                (Outcome::Committed { revision: self.revision }, changes)
            }
            Command::RaiseFeatureLevel { level } => {
                self.feature_level = self.feature_level.max(level);
                (Outcome::Committed { revision: self.revision }, Vec::new())
            }
        }
    }

    /// The current state, to be read while commands go on.
    pub fn view(&self) -> View {
        View { entries: self.entries.clone(), revision: self.revision, compacted: self.compacted, size: self.size }
    }

    /// The state at an earlier revision; `None` when the history does not reach back to it, or it is to come.
    pub fn view_at(&self, revision: Revision) -> Option<View> {
        self.look_back(revision).map(LookBack::view)
    }

    /// What [`LookBack::view`] needs to make the state at an earlier revision, which can take a while, without this one.
    pub fn look_back(&self, revision: Revision) -> Option<LookBack> {
        if revision > self.revision || revision < self.compacted {
            return None;
        }
        let later = self.history.iter().rev().take_while(|record| record.change.revision > revision);
        let undo = later.map(|record| (record.change.key.clone(), record.before.clone())).collect();
        Some(LookBack { view: View { revision, ..self.view() }, undo })
    }

    /// The changes after `revision` of keys that begin with `prefix`, oldest first; `None` when the history does not reach
    /// back so far.
    pub fn changes_after<'a>(
        &'a self,
        revision: Revision,
        prefix: &'a str,
    ) -> Option<impl Iterator<Item = &'a Change> + use<'a>> {
        if revision < self.compacted {
            return None;
        }
        let start = self.history.partition_point(|record| record.change.revision <= revision);
        Some(
            self.history
                .range(start..)
                .map(|record| &record.change)
                .filter(move |change| change.key.starts_with(prefix)),
        )
    }

    /// The revision of the last transaction that changed something.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The size of all keys and values, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What may be written; see [`Command::RaiseFeatureLevel`].
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// Whether [`Command::Expire`] would take something away at `now`.
    pub fn has_expired(&self, now: UnixSeconds) -> bool {
        self.expiries.get_min().is_some_and(|(expires, _)| *expires <= now)
    }

    fn transact(&mut self, transaction: Transaction) -> (Outcome, Vec<Change>) {
        if let Err(refused) = self.check(&transaction) {
            return (refused, Vec::new());
        }
        let revision = Revision(self.revision.0 + 1);
        let mut changes: Vec<Change> = Vec::new();
        for write in transaction.writes {
            let (key, value) = match write {
                Write::Put { key, value } => (key, Some((value, None))),
                Write::PutUntil { key, value, expires } => (key, Some((value, Some(expires)))),
                Write::Delete { key } => (key, None),
            };
            // Within one transaction the last write of a key counts: its earlier change is taken back first.
            if let Some(position) = changes.iter().position(|change| change.key == key) {
                self.take_back(&changes.remove(position));
            }
            changes.extend(self.write(key, value, revision));
        }
        if changes.is_empty() {
            return (Outcome::Committed { revision: self.revision }, changes);
        }
        self.revision = revision;
        self.trim();
        (Outcome::Committed { revision }, changes)
    }

    /// The first reason not to carry it out.
    fn check(&self, transaction: &Transaction) -> Result<(), Outcome> {
        transaction.check_size().map_err(Outcome::TooLarge)?;
        for (index, precondition) in transaction.preconditions.iter().enumerate() {
            let current = self.entries.get(precondition.key());
            let holds = match (precondition, current) {
                (Precondition::Absent(_), current) => current.is_none(),
                (Precondition::Exists(_), current) => current.is_some(),
                (Precondition::ModifiedAt(_, revision), current) => {
                    current.is_some_and(|entry| entry.modified == *revision)
                }
            };
            if !holds {
                return Err(Outcome::Failed { precondition: index, current: current.cloned() });
            }
        }
        if transaction.puts() && self.size > limits::STATE_BYTES {
            return Err(Outcome::Full { size: self.size });
        }
        Ok(())
    }

    /// A watcher that has seen some of one revision's changes could not go on after it, so every key has its own.
    fn expire(&mut self, now: UnixSeconds) -> Vec<Change> {
        let due = self.expiries.iter().take_while(|(expires, _)| *expires <= now).take(limits::EXPIRED_AT_ONCE);
        let due: Vec<Key> = due.map(|(_, key)| key.clone()).collect();
        let mut changes = Vec::new();
        for key in due {
            self.revision = Revision(self.revision.0 + 1);
            changes.extend(self.write(key, None, self.revision));
        }
        self.trim();
        changes
    }

    fn write(&mut self, key: Key, value: Option<(Bytes, Option<UnixSeconds>)>, revision: Revision) -> Option<Change> {
        let current = value.as_ref().map(|(value, _)| value.clone());
        let entry = value.map(|(value, expires)| Entry { value, created: revision, modified: revision, expires });
        let before = self.set(&key, entry);
        if current.is_none() && before.is_none() {
            return None;
        }
        let previous = before.as_ref().map(|entry| entry.value.clone());
        let change = Change { key, revision, current, created: previous.is_none(), previous };
        let record = Record { change: change.clone(), before };
        self.history_bytes += record.size();
        self.history.push_back(record);
        Some(change)
    }

    /// Gives a key an entry, created when the one was that it has, or takes it away; answers what it had.
    fn set(&mut self, key: &Key, entry: Option<Entry>) -> Option<Entry> {
        if let Some(entry) = &entry {
            self.size += size_of(key, entry.value.len());
            if let Some(expires) = entry.expires {
                self.expiries.insert((expires, key.clone()));
            }
        }
        let expires = entry.as_ref().and_then(|entry| entry.expires);
        let before = match entry {
            // Mostly it has one: then there is one way down the tree, and no copy of the key.
            Some(entry) => match self.entries.get_mut(key) {
                Some(place) => {
                    let created = place.created;
                    Some(std::mem::replace(place, Entry { created, ..entry }))
                }
                None => self.entries.insert(key.clone(), entry),
            },
            None => self.entries.remove(key),
        };
        if let Some(before) = &before {
            self.size -= size_of(key, before.value.len());
            if let Some(former) = before.expires.filter(|former| Some(*former) != expires) {
                self.expiries.remove(&(former, key.clone()));
            }
        }
        before
    }

    /// Undoes a change that this same transaction made.
    fn take_back(&mut self, change: &Change) {
        let position =
            self.history.iter().rposition(|record| record.change == *change).expect("the change was recorded just now");
        let record = self.history.remove(position).expect("the position was found just now");
        self.history_bytes -= record.size();
        self.set(&record.change.key, record.before);
    }

    /// Forgets the oldest history above the limits, whole revisions at a time.
    fn trim(&mut self) {
        while self.history.len() > self.kept.changes || self.history_bytes > self.kept.bytes {
            let Some(oldest) = self.history.front().map(|record| record.change.revision) else { return };
            while let Some(record) = self.history.pop_front_if(|record| record.change.revision == oldest) {
                self.history_bytes -= record.size();
            }
            self.compacted = oldest;
        }
    }
}

fn size_of(key: &str, value: usize) -> u64 {
    (key.len() + value) as u64
}
