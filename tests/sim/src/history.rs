//! What clients did and were told, and what the servers say that happened.

use std::collections::{BTreeMap, BTreeSet};

use shoal_store::Revision;

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

/// What one watch of everything, of one server, told.
#[derive(Debug, Clone)]
pub struct Watched {
    pub server: u64,
    /// It was to tell of what came after this,
    pub after: Revision,
    /// and has told of all up to this.
    pub upto: Revision,
    /// How many keys each revision changed, in the order in which it was told.
    pub told: Vec<(Revision, usize)>,
}

#[derive(Debug, Default)]
pub struct History {
    clock: u64,
    pub writes: Vec<Written>,
    pub reads: Vec<Read>,
    pub lists: Vec<Listed>,
    /// What every revision did, as the first server told that told it.
    pub changes: BTreeMap<Revision, BTreeMap<String, Option<String>>>,
    /// Who said that it leads a term: term and server.
    pub leaders: BTreeSet<(u64, u64)>,
    pub watched: Vec<Watched>,
}

impl History {
    /// A point in the order of everything that happened.
    pub fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
