//! A watch tells of every change after its beginning, once, in order, and all servers tell the same.

use shoal_store::{Change, Revision};

use crate::history::{History, Watched};

/// A watch tells of a change.
pub fn told(history: &mut History, watch: usize, change: &Change) -> Result<(), String> {
    history.watched[watch].note(change);
    let value = change.current.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
    let known = history.changes.entry(change.revision).or_default();
    match known.get(&change.key) {
        Some(other) if *other != value => {
            Err(format!("revision {} wrote {other:?} to {} elsewhere, and {value:?} here", change.revision, change.key))
        }
        Some(_) => Ok(()),
        None => {
            known.insert(change.key.clone(), value);
            Ok(())
        }
    }
}

impl Watched {
    pub fn new(server: u64, after: Revision) -> Self {
        Self { server, after, upto: after, told: Vec::new() }
    }

    pub fn upto_at_least(&mut self, revision: Revision) {
        self.upto = self.upto.max(revision);
    }

    fn note(&mut self, change: &Change) {
        match self.told.last_mut() {
            Some((revision, keys)) if *revision == change.revision => *keys += 1,
            _ => self.told.push((change.revision, 1)),
        }
        // More of the same revision may follow, which counts when something later was told.
        self.upto_at_least(Revision(change.revision.0.saturating_sub(1)));
    }
}

pub fn miss_nothing(history: &History) -> Result<(), String> {
    for watched in &history.watched {
        let Watched { server, after, upto, told } = watched;
        let happened = history.changes.range((std::ops::Bound::Excluded(after), std::ops::Bound::Included(upto)));
        let happened = happened.map(|(revision, changes)| (*revision, changes.len()));
        let told_upto = told.iter().copied().filter(|(revision, _)| revision <= upto);
        if !told_upto.eq(happened.clone()) {
            let differs = told.iter().copied().zip(happened).find(|(told, happened)| told != happened);
            return Err(format!(
                "a watch of server {server} after {after} and up to {upto} told something else: {differs:?}"
            ));
        }
    }
    Ok(())
}
