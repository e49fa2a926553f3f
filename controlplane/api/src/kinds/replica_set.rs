//! ReplicaSet: so many pods of one template.

use serde_json::{Value, json};

use super::config_map::never_changes;
use super::deployment::{SCALE, keep_labels};
use super::{pod_template, status};
use crate::resource::{Resource, SelectableField, Strategy, keep_all_but_status};
use crate::table::cells::{AGE, NAME, containers, integer, number, selector, wide};
use crate::validation::FieldError;

pub(super) const ROW: Resource = Resource {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[SCALE, status("apps", "ReplicaSet")],
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    storage: "apps/replicasets",
    has_generation: true,
    columns: &[
        NAME,
        number("Desired", "How many pods are wanted.", |object, _| integer(object, "/spec/replicas").into()),
        number("Current", "How many pods there are.", |object, _| integer(object, "/status/replicas").into()),
        number("Ready", "How many pods are ready.", |object, _| integer(object, "/status/readyReplicas").into()),
        AGE,
        wide("Containers", "The names of the template's containers.", |object, _| {
            containers(object, "/spec/template/spec/containers", "/name")
        }),
        wide("Images", "The images of the template's containers.", |object, _| {
            containers(object, "/spec/template/spec/containers", "/image")
        }),
        wide("Selector", "Which pods are its.", |object, _| selector(object.pointer("/spec/selector"))),
    ],
    selectable_fields: &[SelectableField {
        name: "status.replicas",
        value: |object| integer(object, "/status/replicas").to_string(),
    }],
    strategy: &ReplicaSet,
    ..Resource::BASE
};

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        pod_template::default(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
        keep_labels(new, old);
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        pod_template::check(object, problems);
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        never_changes(new, old, "/spec/selector", "spec.selector", problems);
    }
}
