//! The checks on what every object has: its name, labels, annotations, finalizers and owners.

use serde_json::{Map, Value};

use super::{FieldError, immutable, invalid, names};
use crate::metadata;

/// The bytes that all annotations together may have.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Which names the objects of a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// An RFC 1123 subdomain: most kinds.
    Subdomain,
    /// An RFC 1123 label: namespaces.
    Label,
    /// A DNS 1035 label: Services.
    Label1035,
    /// Anything that can be a segment of a path: RBAC objects.
    PathSegment,
}

impl NameRule {
    fn wrong(self, name: &str) -> Vec<String> {
        match self {
            Self::Subdomain => names::dns_subdomain(name),
            Self::Label => names::dns_label(name),
            Self::Label1035 => names::dns_1035_label(name),
            Self::PathSegment => names::path_segment(name),
        }
    }
}

/// What is wrong with an object's metadata.
pub fn object_metadata(object: &Value, rule: NameRule) -> Vec<FieldError> {
    let mut problems = Vec::new();
    match metadata::name(object).unwrap_or_default() {
        "" => problems.push(FieldError::required("metadata.name", "name or generateName is required")),
        name => invalid(&mut problems, "metadata.name", name, rule.wrong(name)),
    }
    if let Some(namespace) = metadata::namespace(object).filter(|namespace| !namespace.is_empty()) {
        invalid(&mut problems, "metadata.namespace", namespace, names::dns_label(namespace));
    }
    label_map(&mut problems, "metadata.labels", metadata::labels(object));
    annotations(&mut problems, "metadata.annotations", metadata::annotations(object));
    for finalizer in metadata::finalizers(object) {
        invalid(&mut problems, "metadata.finalizers", finalizer, names::qualified_name(finalizer));
    }
    owner_references(&mut problems, object);
    problems
}

/// What is wrong with a map of labels at `field`.
pub fn label_map(problems: &mut Vec<FieldError>, field: &str, labels: Option<&Map<String, Value>>) {
    for (key, value) in labels.into_iter().flatten() {
        invalid(problems, field, key.as_str(), names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        invalid(problems, field, value, names::label_value(value));
    }
}

pub(crate) fn annotations(problems: &mut Vec<FieldError>, field: &str, annotations: Option<&Map<String, Value>>) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        invalid(problems, field, key.as_str(), names::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES {
        problems.push(FieldError::too_long(field, ANNOTATIONS_BYTES));
    }
}

fn owner_references(problems: &mut Vec<FieldError>, object: &Value) {
    let owners = metadata::owner_references(object);
    for (index, owner) in owners.iter().enumerate() {
        for (field, text, message) in [
            ("apiVersion", owner.api_version, "version must not be empty"),
            ("kind", owner.kind, "must not be empty"),
            ("name", owner.name, "must not be empty"),
            ("uid", owner.uid, "must not be empty"),
        ] {
            if text.is_empty() {
                problems.push(FieldError::invalid(format!("metadata.ownerReferences[{index}].{field}"), text, message));
            }
        }
    }
    if owners.iter().filter(|owner| owner.controller).count() > 1 {
        let value = object.pointer("/metadata/ownerReferences").cloned().unwrap_or_default();
        problems.push(FieldError::invalid(
            "metadata.ownerReferences",
            value,
            "Only one reference can have Controller set to true",
        ));
    }
}

/// What is wrong with a change of metadata: identity never changes.
pub fn metadata_change(new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let of = |object: &Value| object.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
        immutable(problems, &format!("metadata.{field}"), of(new).as_ref(), of(old).as_ref());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(object: &Value) -> Vec<String> {
        object_metadata(object, NameRule::Subdomain).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bad_name_is_explained_at_its_path() {
        let texts = texts(&json!({"metadata": {"name": "Bad_Name", "labels": {"-x": "y y"}}}));
        assert!(
            texts[0].starts_with("metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must")
        );
        assert!(texts[1].starts_with("metadata.labels: Invalid value: \"-x\": name part must consist of"));
        assert!(texts[2].starts_with("metadata.labels: Invalid value: \"y y\": a valid label must be"));
    }

    #[test]
    fn annotations_have_a_limit() {
        let texts = texts(&json!({"metadata": {"name": "a", "annotations": {"k": "x".repeat(ANNOTATIONS_BYTES)}}}));
        assert_eq!(texts, ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
    }

    #[test]
    fn an_object_has_one_controller() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        assert_eq!(texts(&json!({"metadata": {"name": "a", "ownerReferences": [owner]}})).len(), 0);
        assert_eq!(texts(&json!({"metadata": {"name": "a", "ownerReferences": [owner, owner, {}]}})).len(), 5);
    }
}
