//! Ownership after a write that is no apply: whoever changed a field owns it, and whoever had it does not.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::compare::{Changes, compare};
use super::managed::{Managed, Manager, Operation};
use super::renew::renew;
use super::{Element, FieldSet, Writer};
use crate::metadata;
use crate::schema::Schema;

const MANAGED_FIELDS: &str = "/metadata/managedFields";

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
/// `old` is an object of no content for a new one, and `kept` its `managedFields`, which need not be in it any more. The
/// managed fields that the new object brings count, since clients may change them, but not through a subresource;
/// without any, or with malformed ones, the kept ones count. `[{}]` and `[]` take everything from everybody. An object
/// that nobody owns stays so unless it is new: what was stored before ownership was known, or stripped, is not tracked.
pub fn track(old: &Value, kept: Option<&Value>, new: &mut Value, schema: Schema<'_>, writer: Writer<'_>) {
    let given = metadata::metadata_mut(new).remove("managedFields");
    let given =
        given.filter(|given| writer.subresource.is_empty() && Some(given) != kept).and_then(|given| read(&given));
    let is_new = metadata::uid(old).unwrap_or_default().is_empty();
    let is_tracked = is_new || given.as_ref().map_or(kept.is_some(), |given| !given.is_empty());
    let changes = if is_tracked { compare(old, new, schema) } else { Changes::default() }.but(nobodys());
    let same = || if changes.is_empty() { kept.cloned() } else { kept.and_then(|kept| renew(kept, &changes, writer)) };
    // The common cases of a loop that writes what is there, or new values of its own fields: nothing is decoded.
    if given.is_none()
        && let Some(same) = same()
    {
        metadata::metadata_mut(new).insert("managedFields".to_owned(), same);
        return;
    }
    let mut managed = given.unwrap_or_else(|| kept.map(decode).unwrap_or_default());
    update(&mut managed, &changes, writer);
    set(new, &managed);
}

/// Those who own fields of an object; nobody if that cannot be read.
pub(super) fn owners(object: &Value) -> Managed {
    object.pointer(MANAGED_FIELDS).map(decode).unwrap_or_default()
}

fn decode(kept: &Value) -> Managed {
    Managed::decode(kept).unwrap_or_default()
}

/// The managed fields that a client has sent; none if they say nothing.
fn read(given: &Value) -> Option<Managed> {
    if is_reset(given) {
        return Some(Managed::default());
    }
    Managed::decode(given).ok().filter(|managed| !managed.is_empty())
}

fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Gives what was changed to the writer and takes it, and what was removed, from everybody else. `changes` are without
/// what is nobody's.
pub(super) fn update(managed: &mut Managed, changes: &Changes, writer: Writer<'_>) {
    if changes.is_empty() {
        return;
    }
    let taken = changes.added.clone().union(&changes.modified);
    for entry in managed.entries.values_mut() {
        entry.fields.subtract(&taken);
        entry.fields.subtract(&changes.removed);
    }
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

/// Whether two maps are equal, one member being compared by `same`: last, because that costs the most.
fn equal_but(
    new: &Map<String, Value>,
    old: &Map<String, Value>,
    member: &str,
    same: impl Fn(&Value, &Value) -> bool,
) -> bool {
    new.len() == old.len()
        && new.iter().filter(|(name, _)| *name != member).all(|(name, value)| old.get(name) == Some(value))
        && match (new.get(member), old.get(member)) {
            (Some(new), Some(old)) => new == old || same(new, old),
            (new, old) => new == old,
        }
}
