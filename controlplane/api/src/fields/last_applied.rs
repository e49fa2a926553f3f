//! From `kubectl apply` to `kubectl apply --server-side`: what the annotation of the one says is the other's.
//!
//! Only for the manager `kubectl`. What the annotation names, and what is still as it says, is no conflict; and while
//! the annotation is there it is kept up, so that a client-side apply can follow.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::collect::fields_of;
use super::compare::compare;
use super::conflict::{self, Conflict};
use super::{FieldSet, Manager};
use crate::decode::conform;
use crate::metadata;
use crate::schema::Schema;

/// The manager that client-side apply becomes.
pub(super) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The conflicts that remain; none if the annotation explains them all.
pub(super) fn refuse(
    conflicts: Vec<Conflict>,
    live: &Value,
    schema: Schema<'_>,
    api_version: &str,
) -> Option<Vec<Conflict>> {
    let allowed = allowed(live, schema, api_version).unwrap_or_default();
    let mut left: BTreeMap<Manager, FieldSet> = BTreeMap::new();
    for conflict in conflicts {
        if !allowed.contains(&conflict.path) {
            left.entry(conflict.manager).or_default().insert(&conflict.path);
        }
    }
    (!left.is_empty()).then(|| conflict::of(&left))
}

/// The fields of the annotation that are as it says.
fn allowed(live: &Value, schema: Schema<'_>, api_version: &str) -> Option<FieldSet> {
    let text = annotation(live)?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    let last = conform(last, Some(schema.message().name)).ok()?.value;
    let changes = compare(&last, live, schema);
    let fields = fields_of(&last, schema);
    Some(fields.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
}

fn annotation(object: &Value) -> Option<&str> {
    let annotations = object.pointer("/metadata/annotations")?;
    annotations.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// Makes the annotation, if there is one, say what was applied now.
pub(super) fn refresh(object: &mut Value, applied: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    let metadata = metadata::metadata_mut(&mut applied);
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{applied}\n");
    let annotations = metadata::metadata_mut(object).entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    annotations[ANNOTATION] = text.into();
}
