//! What clients did and were told, and what the servers say that happened.

use std::collections::BTreeMap;

use shoal_store::{Change, Revision};

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged, at this revision.
    Acknowledged(Revision),
    /// Certainly not done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A write, or several keys' writes at once; all of them write the same value, which no other write has.
#[derive(Debug, Clone)]
pub struct Written {
    pub keys: Vec<String>,
    /// None for a delete.
    pub value: Option<String>,
    pub begun: u64,
    pub ended: u64,
    pub fate: Fate,
}

/// A linearizable read of one key.
#[derive(Debug, Clone)]
pub struct Read {
    pub key: String,
    /// The revision of the state that was looked at.
    pub revision: Revision,
    pub value: Option<String>,
    pub begun: u64,
    pub ended: u64,
}

/// A list that was read page by page, each of the state at one revision.
#[derive(Debug, Clone)]
pub struct Listed {
    pub revision: Revision,
    pub entries: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
pub struct History {
    clock: u64,
    pub writes: Vec<Written>,
    pub reads: Vec<Read>,
    pub lists: Vec<Listed>,
    /// What every revision did, as the first server told that told it.
    pub changes: BTreeMap<Revision, BTreeMap<String, Option<String>>>,
    /// Who led each term.
    pub leaders: BTreeMap<u64, u64>,
}

impl History {
    /// A point in the order of everything that happened.
    pub fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A server tells of a change: all servers must tell the same.
    pub fn told(&mut self, change: &Change) -> Result<(), String> {
        let value = change.current.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
        let known = self.changes.entry(change.revision).or_default();
        match known.get(&change.key) {
            Some(other) if *other != value => Err(format!(
                "revision {} wrote {other:?} to {} elsewhere, and {value:?} here",
                change.revision, change.key
            )),
            Some(_) => Ok(()),
            None => {
                known.insert(change.key.clone(), value);
                Ok(())
            }
        }
    }

    /// A server says that it leads: no two may do so in one term.
    pub fn leads(&mut self, term: u64, id: u64) -> Result<(), String> {
        match self.leaders.insert(term, id) {
            Some(other) if other != id => Err(format!("servers {other} and {id} both lead term {term}")),
            _ => Ok(()),
        }
    }
}
