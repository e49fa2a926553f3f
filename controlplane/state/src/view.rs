//! The state as it was at one revision: what reads, lists and snapshots look at.

use std::ops::Bound;

use imbl::OrdMap;

use crate::{Entry, Key, Revision};

/// An unchanging state. It shares its memory with the live one, so that making one costs next to nothing.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) entries: OrdMap<Key, Entry>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) size: u64,
}

impl View {
    /// The revision that this is the state of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Changes up to and including this revision can no longer be watched or looked back to.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The size of all keys and values, in bytes; of an earlier state, what it is now.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The entry of `key`, if it has one.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The entries whose keys begin with `prefix`, in the order of their keys; only those after `after` when it is given.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Entry)> + use<'a> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_string()),
            _ => Bound::Included(prefix.to_string()),
        };
        self.entries.range((start, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// How many keys begin with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.range(prefix, None).count()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
