//! Namespace: born Active with a finalizer, gone when it is empty.

use serde_json::{Value, json};

use super::status;
use crate::image_policy::{ImagePolicy, PUBLIC_KEYS, UNSIGNED};
use crate::metadata;
use crate::resource::{Resource, SelectableField, Strategy, Subresource, keep};
use crate::table::cells::{AGE, NAME, column, text};
use crate::validation::{self, FieldError, NameRule};

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

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut problems = validation::object_metadata(object, self.names());
        image_policy(object, &mut problems);
        problems
    }

    // What is there already hinders nobody, or a namespace could not even be deleted: the nodes cannot read it either and start nothing.
    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        if [PUBLIC_KEYS, UNSIGNED].iter().any(|name| annotation(new, name) != annotation(old, name)) {
            image_policy(new, problems);
        }
    }
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    metadata::annotations(object)?.get(name)?.as_str()
}

/// The annotations about signatures can be read.
fn image_policy(object: &Value, problems: &mut Vec<FieldError>) {
    if let Err(wrong) = ImagePolicy::of(|name| annotation(object, name)) {
        problems.push(FieldError::invalid(
            format!("metadata.annotations[{}]", wrong.annotation),
            wrong.part,
            wrong.why,
        ));
    }
}
