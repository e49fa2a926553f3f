//! ConfigMap: text and bytes by key, perhaps for ever the same.

use serde_json::Value;

use crate::resource::{Resource, Strategy};
use crate::table::cells::{AGE, NAME, members, number};
use crate::validation::{FieldError, immutable, invalid, names};

pub(super) const ROW: Resource = Resource {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    schema: "io.k8s.api.core.v1.ConfigMap",
    storage: "core/configmaps",
    columns: &[
        NAME,
        number("Data", "How many keys it has.", |object, _| {
            (members(object, "/data") + members(object, "/binaryData")).into()
        }),
        AGE,
    ],
    strategy: &ConfigMap,
    ..Resource::BASE
};

/// The bytes that a ConfigMap or Secret may hold.
pub(super) const LARGEST: usize = 1024 * 1024;

struct ConfigMap;

impl Strategy for ConfigMap {
    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        let mut bytes = 0;
        for field in ["data", "binaryData"] {
            for (key, value) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
                let path = format!("{field}[{key}]");
                invalid(problems, &path, key.as_str(), names::config_key(key));
                if field == "binaryData" && object.pointer("/data").is_some_and(|data| data.get(key).is_some()) {
                    problems.push(FieldError::invalid(path, key.as_str(), "duplicate of key present in data"));
                }
                bytes += value.as_str().map_or(0, str::len);
            }
        }
        if bytes > LARGEST {
            problems.push(FieldError::too_long("", LARGEST));
        }
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        keeps_what_is_immutable(new, old, &["data", "binaryData"], problems);
    }
}

/// Once `immutable` is true it stays so, and so does the content.
pub(super) fn keeps_what_is_immutable(new: &Value, old: &Value, content: &[&str], problems: &mut Vec<FieldError>) {
    if old.get("immutable").and_then(Value::as_bool) != Some(true) {
        return;
    }
    if new.get("immutable").and_then(Value::as_bool) != Some(true) {
        problems.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in content {
        if new.get(field) != old.get(field) {
            problems.push(FieldError::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
}

/// A member that never changes.
pub(super) fn never_changes(new: &Value, old: &Value, pointer: &str, field: &str, problems: &mut Vec<FieldError>) {
    immutable(problems, field, new.pointer(pointer), old.pointer(pointer));
}
