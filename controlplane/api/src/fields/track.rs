//! Ownership after a write that is no apply: whoever changed a field owns it, and whoever had it does not.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::compare::{Changes, compare};
use super::managed::{Managed, Manager, Operation};
use super::{Element, FieldSet, Writer};
use crate::metadata;
use crate::schema::Schema;

/// What nobody owns, because the server alone sets it or because it names the object.
const NOBODYS: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "clusterName"],
    &["metadata", "creationTimestamp"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "resourceVersion"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
];

/// Sets the new object's `managedFields` to what they are after this write.
///
/// `owners` are those before it, see [`owners`]; `old` is an object of no content for a new object. An object that
/// nobody has owned so far stays so, unless it is new: what was stored before, or stripped, is not tracked.
pub fn track(old: &Value, new: &mut Value, mut owners: Managed, schema: Schema<'_>, writer: Writer<'_>) {
    let is_new = metadata::uid(old).unwrap_or_default().is_empty();
    let changes = if owners.is_empty() && !is_new { Changes::default() } else { compare(old, new, schema) };
    if changes.is_empty() && old.pointer("/metadata/managedFields").is_some_and(|kept| owners_are(kept, new)) {
        return;
    }
    update(&mut owners, &changes, writer);
    set(new, &owners);
}

/// Whether the new object already shows these managed fields.
fn owners_are(kept: &Value, new: &Value) -> bool {
    new.pointer("/metadata/managedFields") == Some(kept)
}

/// Those who own fields before a write: what the new object says, since clients may change it, else what the old one
/// says. `[{}]` and `[]` in the new object take everything from everybody.
pub fn owners(old: &Value, new: &Value, is_subresource: bool) -> Managed {
    let of = |object: &Value| object.pointer("/metadata/managedFields").map(Managed::decode);
    let given = new.pointer("/metadata/managedFields").filter(|given| !given.is_null());
    match given {
        Some(given) if !is_subresource && is_reset(given) => Managed::default(),
        Some(given) if !is_subresource => match Managed::decode(given) {
            Ok(managed) if !managed.is_empty() => managed,
            _ => of(old).and_then(Result::ok).unwrap_or_default(),
        },
        _ => of(old).and_then(Result::ok).unwrap_or_default(),
    }
}

fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Gives what was changed to the writer and takes it, and what was removed, from everybody else.
pub(super) fn update(managed: &mut Managed, changes: &Changes, writer: Writer<'_>) {
    if changes.is_empty() {
        return;
    }
    let mut taken = changes.added.clone().union(&changes.modified);
    for entry in managed.entries.values_mut() {
        entry.fields.subtract(&taken);
        entry.fields.subtract(&changes.removed);
    }
    taken.subtract(nobodys());
    if !taken.is_empty() {
        let entry = managed.entries.entry(Manager::of(writer, Operation::Update)).or_default();
        entry.fields.add(&taken);
        writer.api_version.clone_into(&mut entry.api_version);
        entry.time = Some(writer.now.to_owned());
    }
    managed.drop_empty();
    managed.cap();
}

/// Writes the managed fields into an object; none leave no trace.
pub(super) fn set(object: &mut Value, managed: &Managed) {
    let metadata = metadata::metadata_mut(object);
    if managed.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), managed.encode());
    }
}

/// What is nobody's.
pub(super) fn nobodys() -> &'static FieldSet {
    static SET: OnceLock<FieldSet> = OnceLock::new();
    SET.get_or_init(|| {
        let mut set = FieldSet::default();
        for path in NOBODYS {
            let path: Vec<Element> = path.iter().map(|name| Element::field(*name)).collect();
            set.insert(&path);
        }
        set
    })
}

/// Whether two objects differ in nothing but the times of their managed fields: a write that would change nothing.
pub fn only_times_differ(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    equal_but(new, old, "metadata", |new, old| {
        let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
        equal_but(new, old, "managedFields", |new, old| match (new.as_array(), old.as_array()) {
            (Some(new), Some(old)) => new.len() == old.len() && same_but_times(new, old),
            _ => false,
        })
    })
}

fn same_but_times(new: &[Value], old: &[Value]) -> bool {
    // Times decide on the order, so an entry is looked for anywhere.
    let without_time = |entry: &Value| {
        let mut entry = entry.clone();
        entry.as_object_mut().map(|entry| entry.remove("time"));
        entry
    };
    let old: Vec<Value> = old.iter().map(without_time).collect();
    new.iter().all(|entry| old.contains(&without_time(entry)))
}

/// Whether two maps are equal, one member being compared by `same`.
fn equal_but(
    new: &Map<String, Value>,
    old: &Map<String, Value>,
    member: &str,
    same: impl Fn(&Value, &Value) -> bool,
) -> bool {
    new.len() == old.len()
        && new.iter().all(|(name, value)| match old.get(name) {
            Some(old) if name == member => value == old || same(value, old),
            other => other == Some(value),
        })
}
