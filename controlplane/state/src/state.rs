//! The state machine itself: applying commands, and the recent history that watches are fed from.

use std::collections::VecDeque;

use bytes::Bytes;
use imbl::OrdMap;

use crate::command::{Command, Entry, Key, Outcome, Precondition, Revision, Transaction, Write};
use crate::limits;
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

/// The replicated state, and this server's window of history.
///
/// The history is not replicated: a server that has just started has less of it, and says so by what is compacted.
#[derive(Debug, Clone, Default)]
pub struct State {
    entries: OrdMap<Key, Entry>,
    revision: Revision,
    last_member: u64,
    size: u64,
    compacted: Revision,
    history: VecDeque<Record>,
    history_bytes: u64,
}

impl State {
    /// Nothing, at revision 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state that a snapshot holds; everything up to its revision is compacted.
    pub(crate) fn restore(entries: OrdMap<Key, Entry>, revision: Revision, last_member: u64) -> Self {
        let size = entries.iter().map(|(key, entry)| size_of(key, entry.value.len())).sum();
        Self { entries, revision, last_member, size, compacted: revision, history: VecDeque::new(), history_bytes: 0 }
    }

    /// The parts that a snapshot holds.
    pub(crate) fn parts(&self) -> (&OrdMap<Key, Entry>, Revision, u64) {
        (&self.entries, self.revision, self.last_member)
    }

    /// Carries out one command; answers what became of it and which keys changed.
    ///
    /// The changes share one revision, in the order of the writes, one a key.
    pub fn apply(&mut self, command: Command) -> (Outcome, Vec<Change>) {
        match command {
            Command::Transaction(transaction) => self.transact(transaction),
            Command::AllocateMember => {
                self.last_member += 1;
                (Outcome::Member(self.last_member), Vec::new())
            }
        }
    }

    /// The current state, to be read while commands go on.
    pub fn view(&self) -> View {
        View { entries: self.entries.clone(), revision: self.revision, compacted: self.compacted }
    }

    /// The state at an earlier revision; `None` when the history does not reach back to it, or it is to come.
    pub fn view_at(&self, revision: Revision) -> Option<View> {
        if revision > self.revision || revision < self.compacted {
            return None;
        }
        let mut entries = self.entries.clone();
        for record in self.history.iter().rev().take_while(|record| record.change.revision > revision) {
            match &record.before {
                Some(entry) => entries.insert(record.change.key.clone(), entry.clone()),
                None => entries.remove(&record.change.key),
            };
        }
        Some(View { entries, revision, compacted: self.compacted })
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

    fn transact(&mut self, transaction: Transaction) -> (Outcome, Vec<Change>) {
        if let Err(refused) = self.check(&transaction) {
            return (refused, Vec::new());
        }
        let revision = Revision(self.revision.0 + 1);
        let mut changes: Vec<Change> = Vec::new();
        for write in transaction.writes {
            let (key, value) = match write {
                Write::Put { key, value } => (key, Some(value)),
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
        let grows = transaction.writes.iter().any(|write| matches!(write, Write::Put { .. }));
        if grows && self.size > limits::STATE_BYTES {
            return Err(Outcome::Full { size: self.size });
        }
        Ok(())
    }

    fn write(&mut self, key: Key, value: Option<Bytes>, revision: Revision) -> Option<Change> {
        let before = self.entries.get(&key).cloned();
        if value.is_none() && before.is_none() {
            return None;
        }
        if let Some(entry) = &before {
            self.size -= size_of(&key, entry.value.len());
        }
        match &value {
            Some(value) => {
                self.size += size_of(&key, value.len());
                let created = before.as_ref().map_or(revision, |entry| entry.created);
                self.entries.insert(key.clone(), Entry { value: value.clone(), created, modified: revision });
            }
            None => {
                self.entries.remove(&key);
            }
        }
        let previous = before.as_ref().map(|entry| entry.value.clone());
        let change = Change { key, revision, current: value, created: previous.is_none(), previous };
        self.history_bytes += change.previous.as_ref().map_or(0, |value| value.len() as u64) + change.key.len() as u64;
        self.history.push_back(Record { change: change.clone(), before });
        Some(change)
    }

    /// Undoes a change that this same transaction made.
    fn take_back(&mut self, change: &Change) {
        let position =
            self.history.iter().rposition(|record| record.change == *change).expect("the change was recorded just now");
        let record = self.history.remove(position).expect("the position was found just now");
        self.history_bytes -=
            record.change.previous.as_ref().map_or(0, |value| value.len() as u64) + record.change.key.len() as u64;
        if let Some(value) = &record.change.current {
            self.size -= size_of(&record.change.key, value.len());
        }
        match record.before {
            Some(entry) => {
                self.size += size_of(&record.change.key, entry.value.len());
                self.entries.insert(record.change.key, entry);
            }
            None => {
                self.entries.remove(&record.change.key);
            }
        }
    }

    /// Forgets the oldest history above the limits, whole revisions at a time.
    fn trim(&mut self) {
        while self.history.len() > limits::HISTORY_CHANGES || self.history_bytes > limits::HISTORY_BYTES {
            let Some(oldest) = self.history.front().map(|record| record.change.revision) else { return };
            while let Some(record) = self.history.pop_front_if(|record| record.change.revision == oldest) {
                self.history_bytes -= record.change.previous.as_ref().map_or(0, |value| value.len() as u64)
                    + record.change.key.len() as u64;
            }
            self.compacted = oldest;
        }
    }
}

fn size_of(key: &str, value: usize) -> u64 {
    (key.len() + value) as u64
}
