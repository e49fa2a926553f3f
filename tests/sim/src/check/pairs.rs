//! What one transaction writes changes together.

use crate::history::History;

pub fn are_never_torn(history: &History) -> Result<(), String> {
    for (revision, changes) in &history.changes {
        for (key, value) in changes {
            let Some(number) = key.strip_prefix("/pair/a/") else { continue };
            let other = changes.get(&format!("/pair/b/{number}"));
            if other != Some(value) {
                return Err(format!("revision {revision} wrote {value:?} to {key}, and {other:?} to its other half"));
            }
        }
    }
    Ok(())
}
