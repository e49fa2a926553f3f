//! The pages of a list are one state, that of its revision, whatever was written between them.

use std::collections::BTreeMap;

use crate::history::History;

pub fn are_of_one_state(history: &History) -> Result<(), String> {
    let mut lists: Vec<_> = history.lists.iter().collect();
    lists.sort_by_key(|listed| listed.revision);
    let mut state: BTreeMap<&String, &String> = BTreeMap::new();
    let mut changes = history.changes.iter().peekable();
    for listed in lists {
        while let Some((_, changed)) = changes.next_if(|(revision, _)| **revision <= listed.revision) {
            for (key, value) in changed.iter().filter(|(key, _)| key.starts_with("/k/")) {
                match value {
                    Some(value) => state.insert(key, value),
                    None => state.remove(key),
                };
            }
        }
        if !listed.entries.iter().eq(state.iter().map(|(key, value)| (*key, *value))) {
            return Err(format!("{listed:?} is not the state of its revision: {state:?}"));
        }
    }
    Ok(())
}
