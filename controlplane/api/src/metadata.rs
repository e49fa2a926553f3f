//! Reading and setting what every object has, on a `serde_json::Value`.
//!
//! Nothing here makes up a time, a uid or a name: those are given by the caller.

use serde_json::{Map, Value, json};

/// One owner of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    /// `apps/v1`.
    pub api_version: &'a str,
    /// `ReplicaSet`.
    pub kind: &'a str,
    /// The owner's name, in the same namespace or cluster-scoped.
    pub name: &'a str,
    /// The owner's uid.
    pub uid: &'a str,
    /// Whether this owner is the one that controls the object.
    pub controller: bool,
    /// Whether the owner's foreground deletion waits for this object.
    pub block_owner_deletion: bool,
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get("metadata")?.get(field)?.as_str()
}

/// The name.
pub fn name(object: &Value) -> Option<&str> {
    text(object, "name")
}

/// The namespace; none for what has none.
pub fn namespace(object: &Value) -> Option<&str> {
    text(object, "namespace")
}

/// The uid.
pub fn uid(object: &Value) -> Option<&str> {
    text(object, "uid")
}

/// The version as a client sees it.
pub fn resource_version(object: &Value) -> Option<&str> {
    text(object, "resourceVersion")
}

/// When it was made, as RFC 3339 text.
pub fn creation_timestamp(object: &Value) -> Option<&str> {
    text(object, "creationTimestamp")
}

/// When its deletion was asked for (or, for a pod, is due); none while it lives.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    text(object, "deletionTimestamp")
}

/// The generation of its wish.
pub fn generation(object: &Value) -> Option<i64> {
    object.get("metadata")?.get("generation")?.as_i64()
}

/// The labels; their values are strings.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("labels")?.as_object()
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// The annotations; their values are strings.
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("annotations")?.as_object()
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

/// The finalizers, in order.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.get("metadata").and_then(|metadata| metadata.get("finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The owners, in order.
pub fn owner_references(object: &Value) -> Vec<OwnerReference<'_>> {
    let list = object.get("metadata").and_then(|metadata| metadata.get("ownerReferences")).and_then(Value::as_array);
    list.into_iter().flatten().map(owner_reference).collect()
}

fn owner_reference(value: &Value) -> OwnerReference<'_> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let flag = |field: &str| value.get(field).and_then(Value::as_bool).unwrap_or_default();
    OwnerReference {
        api_version: text("apiVersion"),
        kind: text("kind"),
        name: text("name"),
        uid: text("uid"),
        controller: flag("controller"),
        block_owner_deletion: flag("blockOwnerDeletion"),
    }
}

/// The owner that controls the object.
pub fn controller(object: &Value) -> Option<OwnerReference<'_>> {
    owner_references(object).into_iter().find(|owner| owner.controller)
}

/// The metadata, made if missing or no object.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    member_mut(object, "metadata")
}

/// Sets one string field of the metadata.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// Sets a label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    let labels = metadata_mut(object).entry("labels").or_insert_with(|| json!({}));
    if !labels.is_object() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(key.to_owned(), value.into());
    }
}

/// A member that is an object, made if missing or something else.
pub(crate) fn member_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let map = object.as_object_mut().expect("was just made an object");
    let member = map.entry(field).or_insert_with(|| json!({}));
    if !member.is_object() {
        *member = json!({});
    }
    member.as_object_mut().expect("was just made an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_found_in_what_is_no_object() {
        for value in [
            json!(null),
            json!([]),
            json!({"metadata": 1}),
            json!({"metadata": {"labels": [], "name": 1, "finalizers": {}}}),
        ] {
            assert_eq!((name(&value), labels(&value), finalizers(&value)), (None, None, vec![]));
            assert!(owner_references(&value).is_empty());
        }
    }

    #[test]
    fn the_controller_is_one_of_the_owners() {
        let object = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}]}});
        assert_eq!(controller(&object).unwrap().name, "r");
        assert_eq!(owner_references(&object).len(), 2);
    }
}
