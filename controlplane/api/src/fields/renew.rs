//! New values of fields that their writer owns already: the sets stay as they are, and one time changes.
//!
//! Every status report of a node is of this kind, so it is worth not to decode the sets: they are looked at as the JSON
//! that they are. The answer is the one that decoding would give, or none.

use serde_json::Value;

use super::compare::Changes;
use super::managed::Operation;
use super::{FieldSet, Writer};

/// The managed fields after such a write; none if it is not of this kind.
pub(super) fn renew(kept: &Value, changes: &Changes, writer: Writer<'_>) -> Option<Value> {
    if !changes.added.is_empty() || !changes.removed.is_empty() {
        return None;
    }
    let entries = kept.as_array()?;
    let mut own = None;
    for (index, entry) in entries.iter().enumerate() {
        let fields = entry.get("fieldsV1")?;
        if is_of(entry, writer) {
            own = covers(fields, &changes.modified).then_some(index);
            own?;
        } else if touches(fields, &changes.modified) {
            return None;
        }
    }
    let mut entries = entries.clone();
    // The entry with the latest time is the last one: updaters come after those who apply, by time.
    let mut renewed = entries.remove(own?);
    renewed["time"] = writer.now.into();
    entries.push(renewed);
    Some(Value::Array(entries))
}

/// Whether the entry is the writer's own.
fn is_of(entry: &Value, writer: Writer<'_>) -> bool {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
    text("operation") == Operation::Update.as_str()
        && (text("manager"), text("apiVersion"), text("subresource"))
            == (writer.manager, writer.api_version, writer.subresource)
}

/// Whether every field of the set is in the encoded one.
fn covers(fields: &Value, set: &FieldSet) -> bool {
    set.nodes().all(|(element, node)| {
        let Some(below) = fields.get(element.encode()) else { return false };
        (!node.member || is_member(below)) && covers(below, &node.below)
    })
}

/// Whether any field of the set is in the encoded one.
fn touches(fields: &Value, set: &FieldSet) -> bool {
    set.nodes().any(|(element, node)| {
        let Some(below) = fields.get(element.encode()) else { return false };
        (node.member && is_member(below)) || touches(below, &node.below)
    })
}

/// Whether the place of this encoded node is itself in the set.
fn is_member(node: &Value) -> bool {
    node.as_object().is_some_and(|node| node.is_empty() || node.contains_key("."))
}
