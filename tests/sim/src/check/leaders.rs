//! No two servers lead one term.

use crate::history::History;

pub fn are_one_a_term(history: &History) -> Result<(), String> {
    let mut leaders = history.leaders.iter().peekable();
    while let Some((term, one)) = leaders.next() {
        if let Some((_, other)) = leaders.next_if(|(next, _)| next == term) {
            return Err(format!("servers {one} and {other} both led term {term}"));
        }
    }
    Ok(())
}
