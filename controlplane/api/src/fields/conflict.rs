//! A field that another manager owns and that an applied configuration wants otherwise.

use std::collections::BTreeMap;

use super::{Element, FieldSet, Manager};
use crate::status::Status;

/// A field with the manager who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: Manager,
    /// Where it is.
    pub path: Vec<Element>,
}

impl Conflict {
    /// `.spec.containers[name="main"].image`.
    pub fn path_text(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

/// A conflict for each field of each manager, managers in their order.
pub(super) fn of(sets: &BTreeMap<Manager, FieldSet>) -> Vec<Conflict> {
    sets.iter()
        .flat_map(|(manager, set)| set.paths().into_iter().map(|path| Conflict { manager: manager.clone(), path }))
        .collect()
}

/// 409 with a cause for each conflict, in the words that kubectl users know. `conflicts` is not empty.
pub(super) fn status(conflicts: &[Conflict]) -> Status {
    let mut status = Status::apply_conflict(message(conflicts));
    for conflict in conflicts {
        let text = format!("conflict with {}", conflict.manager);
        status = status.with_cause("FieldManagerConflict", &conflict.path_text(), &text);
    }
    status
}

fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path_text());
    }
    let mut lines: Vec<String> = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.path_text()));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
