//! Namespace: born Active with a finalizer, gone when it is empty.

use serde_json::{Value, json};

use super::status;
use crate::metadata;
use crate::resource::{Resource, SelectableField, Strategy, Subresource, keep};
use crate::table::cells::{AGE, NAME, column, text};
use crate::validation::NameRule;

pub(super) const ROW: Resource = Resource {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] },
        status("", "Namespace"),
    ],
    schema: "io.k8s.api.core.v1.Namespace",
    storage: "core/namespaces",
    columns: &[
        NAME,
        column("Status", "Whether it is active or on its way out.", |object, _| text(object, "/status/phase").into()),
        AGE,
    ],
    selectable_fields: &[SelectableField {
        name: "status.phase",
        value: |object| text(object, "/status/phase").to_owned(),
    }],
    strategy: &Namespace,
    ..Resource::BASE
};

struct Namespace;

impl Strategy for Namespace {
    fn names(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, object: &mut Value) {
        if let Some(name) = metadata::name(object).map(str::to_owned).filter(|name| !name.is_empty()) {
            metadata::set_label(object, "kubernetes.io/metadata.name", &name);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        keep(new, old, "status");
    }
}
