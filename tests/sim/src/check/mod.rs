//! What was promised, an invariant a file.

mod agreement;
mod backup;
mod heals;
mod leaders;
mod lists;
mod pairs;
mod reads;
mod revisions;
mod watches;
mod writes;

pub use agreement::agree;
pub use backup::restores;
pub use heals::everything as heals;
pub use watches::told;

use crate::history::History;

/// What can be looked for in what was written down.
pub fn history(history: &History) -> Result<(), String> {
    leaders::are_one_a_term(history)?;
    watches::miss_nothing(history)?;
    writes::nothing_comes_from_nowhere_or_twice(history)?;
    writes::acknowledged_writes_happened(history)?;
    revisions::grow(history)?;
    reads::are_linearizable(history)?;
    lists::are_of_one_state(history)?;
    pairs::are_never_torn(history)
}
