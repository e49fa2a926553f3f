//! Every acknowledged write happened, at the revision that was told, and no write happened that nobody made, or twice.

use std::collections::BTreeMap;

use crate::history::{Fate, History};

pub fn acknowledged_writes_happened(history: &History) -> Result<(), String> {
    for written in &history.writes {
        let Fate::Acknowledged(revision) = written.fate else { continue };
        let changes = history.changes.get(&revision);
        for key in &written.keys {
            let told = changes.and_then(|changes| changes.get(key));
            // A delete of what is not there changes nothing.
            let fits = told == Some(&written.value) || (written.value.is_none() && told.is_none());
            if !fits {
                return Err(format!("{written:?} was acknowledged, and {told:?} happened"));
            }
        }
    }
    Ok(())
}

pub fn nothing_comes_from_nowhere_or_twice(history: &History) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    let made: BTreeMap<(&String, &String), &Fate> = history
        .writes
        .iter()
        .flat_map(|written| written.keys.iter().zip(std::iter::repeat(written)))
        .filter_map(|(key, written)| Some(((key, written.value.as_ref()?), &written.fate)))
        .collect();
    for (revision, changes) in &history.changes {
        for (key, value) in changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            match made.get(&(key, value)) {
                None => return Err(format!("nobody wrote {value:?} to {key}, which revision {revision} did")),
                Some(Fate::Refused) => {
                    return Err(format!("the write of {value:?} to {key} was refused, and is revision {revision}"));
                }
                Some(Fate::Acknowledged(other)) if other != revision => {
                    return Err(format!("{value:?} was acknowledged as revision {other}, and is {revision}"));
                }
                Some(_) => {}
            }
            if let Some(before) = seen.insert((key, value), revision) {
                return Err(format!("{value:?} was written to {key} at {before} and again at {revision}"));
            }
        }
    }
    Ok(())
}
