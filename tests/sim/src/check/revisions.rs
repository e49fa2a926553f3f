//! A write that began after another one was acknowledged has a later revision.

use shoal_store::Revision;

use crate::history::{Fate, History};

pub fn grow(history: &History) -> Result<(), String> {
    let mut acknowledged: Vec<(u64, Revision)> = history
        .writes
        .iter()
        .filter_map(|written| match written.fate {
            Fate::Acknowledged(revision) => Some((written.ended, revision)),
            _ => None,
        })
        .collect();
    acknowledged.sort();
    // The highest revision that was acknowledged up to each point.
    let mut highest = Revision(0);
    for (_, revision) in &mut acknowledged {
        highest = highest.max(*revision);
        *revision = highest;
    }
    for written in &history.writes {
        let Fate::Acknowledged(revision) = written.fate else { continue };
        let before = acknowledged.partition_point(|(ended, _)| *ended < written.begun);
        let Some((_, least)) = before.checked_sub(1).map(|last| acknowledged[last]) else { continue };
        // A write that changes nothing has the revision that was there.
        if revision < least || (revision == least && written.value.is_some()) {
            return Err(format!("{written:?} began after revision {least} was acknowledged"));
        }
    }
    Ok(())
}
