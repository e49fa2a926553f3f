//! A read sees all that was acknowledged before it began and all that a read before it saw, and what it sees is what there was at
//! its revision. Every write has a revision of its own, so that this is linearizability.

use shoal_store::Revision;

use crate::history::{Fate, History, Read};

pub fn are_linearizable(history: &History) -> Result<(), String> {
    let of_writes = history.writes.iter().filter_map(|written| match written.fate {
        Fate::Acknowledged(revision) => Some((written.ended, revision)),
        _ => None,
    });
    let of_reads = history.reads.iter().map(|read| (read.ended, read.revision));
    let mut known: Vec<(u64, Revision)> = of_writes.chain(of_reads).collect();
    known.sort();
    let mut highest = Revision(0);
    for (_, revision) in &mut known {
        highest = highest.max(*revision);
        *revision = highest;
    }
    for read in &history.reads {
        let before = known.partition_point(|(ended, _)| *ended < read.begun);
        if let Some((_, least)) = before.checked_sub(1).map(|last| known[last])
            && read.revision < least
        {
            return Err(format!("{read:?} began after revision {least} was known"));
        }
        check_content(history, read)?;
    }
    Ok(())
}

fn check_content(history: &History, read: &Read) -> Result<(), String> {
    let upto = history.changes.range(..=read.revision).rev();
    let last = upto.filter_map(|(revision, changes)| Some((revision, changes.get(&read.key)?))).next();
    let expected = last.and_then(|(_, value)| value.clone());
    if expected == read.value { Ok(()) } else { Err(format!("{read:?} should have seen {last:?}")) }
}
