//! Secret: bytes by key. `stringData` is what a person writes; it is stored, in base64, as `data`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::config_map::{LARGEST, keeps_what_is_immutable, never_changes};
use crate::metadata::member_mut;
use crate::resource::{Resource, SelectableField, Strategy};
use crate::table::cells::{AGE, NAME, column, members, number, text};
use crate::validation::{FieldError, invalid, names};

pub(super) const ROW: Resource = Resource {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    schema: "io.k8s.api.core.v1.Secret",
    storage: "core/secrets",
    columns: &[
        NAME,
        column("Type", "What the secret is for.", |object, _| text(object, "/type").into()),
        number("Data", "How many keys it has.", |object, _| members(object, "/data").into()),
        AGE,
    ],
    selectable_fields: &[SelectableField { name: "type", value: |object| text(object, "/type").to_owned() }],
    strategy: &Secret,
    ..Resource::BASE
};

/// The keys that a type asks for.
const REQUIRED: [(&str, &[&str]); 4] = [
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
];

struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        let kind = map.entry("type").or_insert_with(|| "Opaque".into());
        if kind.as_str() == Some("") {
            *kind = json!("Opaque");
        }
        if let Some(Value::Object(texts)) = map.remove("stringData") {
            let data = member_mut(object, "data");
            for (key, value) in texts {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
        }
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        let mut bytes = 0;
        for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
            invalid(problems, &format!("data[{key}]"), key.as_str(), names::config_key(key));
            bytes += value.as_str().map_or(0, str::len) / 4 * 3;
        }
        if bytes > LARGEST {
            problems.push(FieldError::too_long("data", LARGEST));
        }
        let kind = text(object, "/type");
        let required = REQUIRED.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| *keys);
        for key in required {
            if object.get("data").and_then(|data| data.get(*key)).is_none() {
                problems.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
        if kind == "kubernetes.io/service-account-token"
            && crate::metadata::annotation(object, "kubernetes.io/service-account.name").unwrap_or_default().is_empty()
        {
            problems.push(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
        }
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        never_changes(new, old, "/type", "type", problems);
        keeps_what_is_immutable(new, old, &["data"], problems);
    }
}
