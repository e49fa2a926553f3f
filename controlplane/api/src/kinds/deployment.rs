//! Deployment: ReplicaSets rolled from one template to the next.

use serde_json::{Value, json};

use super::config_map::never_changes;
use super::{pod_template, status};
use crate::metadata::member_mut;
use crate::resource::{Resource, Strategy, Subresource, keep, keep_all_but_status};
use crate::table::cells::{AGE, NAME, column, containers, integer, number, selector, text, wide};
use crate::validation::{FieldError, non_negative, one_of};

pub(super) const SCALE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: &["get", "patch", "update"],
};

pub(super) const ROW: Resource = Resource {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[SCALE, status("apps", "Deployment")],
    schema: "io.k8s.api.apps.v1.Deployment",
    storage: "apps/deployments",
    has_generation: true,
    columns: &[
        NAME,
        column("Ready", "How many pods are ready, of how many.", |object, _| {
            format!("{}/{}", integer(object, "/status/readyReplicas"), integer(object, "/spec/replicas")).into()
        }),
        number("Up-to-date", "How many pods are of the present template.", |object, _| {
            integer(object, "/status/updatedReplicas").into()
        }),
        number("Available", "How many pods have been ready for long enough.", |object, _| {
            integer(object, "/status/availableReplicas").into()
        }),
        AGE,
        wide("Containers", "The names of the template's containers.", |object, _| {
            containers(object, "/spec/template/spec/containers", "/name")
        }),
        wide("Images", "The images of the template's containers.", |object, _| {
            containers(object, "/spec/template/spec/containers", "/image")
        }),
        wide("Selector", "Which pods are its.", |object, _| selector(object.pointer("/spec/selector"))),
    ],
    strategy: &Deployment,
    ..Resource::BASE
};

struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        pod_template::default(object);
        let spec = member_mut(object, "spec");
        spec.entry("revisionHistoryLimit").or_insert_with(|| 10.into());
        spec.entry("progressDeadlineSeconds").or_insert_with(|| 600.into());
        let strategy = member_mut(object.get_mut("spec").expect("was just made"), "strategy");
        if strategy.get("type").and_then(Value::as_str).unwrap_or_default().is_empty() {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
        }
        if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
            let rolling = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
            for field in ["maxSurge", "maxUnavailable"] {
                if let Some(rolling) = rolling.as_object_mut() {
                    rolling.entry(field).or_insert_with(|| "25%".into());
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
        keep_labels(new, old);
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        pod_template::check(object, problems);
        let spec = object.get("spec").unwrap_or(&Value::Null);
        non_negative(problems, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"));
        non_negative(problems, "spec.progressDeadlineSeconds", spec.get("progressDeadlineSeconds"));
        one_of(problems, "spec.strategy.type", text(spec, "/strategy/type"), &["Recreate", "RollingUpdate"]);
        let Some(rolling) = spec.pointer("/strategy/rollingUpdate").filter(|rolling| !rolling.is_null()) else {
            return;
        };
        if text(spec, "/strategy/type") == "Recreate" {
            problems.push(FieldError::forbidden(
                "spec.strategy.rollingUpdate",
                "may not be specified when strategy `type` is 'Recreate'",
            ));
            return;
        }
        for field in ["maxSurge", "maxUnavailable"] {
            share(problems, &format!("spec.strategy.rollingUpdate.{field}"), rolling.get(field));
        }
        let nothing = |field: &str| matches!(rolling.get(field), Some(value) if value.as_i64() == Some(0) || value.as_str() == Some("0%"));
        if nothing("maxSurge") && nothing("maxUnavailable") {
            let field = "spec.strategy.rollingUpdate.maxUnavailable";
            problems.push(FieldError::invalid(
                field,
                rolling["maxUnavailable"].clone(),
                "may not be 0 when `maxSurge` is 0",
            ));
        }
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        never_changes(new, old, "/spec/selector", "spec.selector", problems);
    }
}

/// A status does not change the labels of what makes pods.
pub(super) fn keep_labels(new: &mut Value, old: &Value) {
    if let (Some(new), Some(old)) = (new.get_mut("metadata"), old.get("metadata")) {
        keep(new, old, "labels");
    }
}

/// A number that is not negative, or a share such as `25%`.
fn share(problems: &mut Vec<FieldError>, field: &str, value: Option<&Value>) {
    match value {
        Some(Value::String(text)) => {
            let good = text
                .strip_suffix('%')
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
            if !good {
                problems.push(FieldError::invalid(field, text.as_str(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"));
            }
        }
        number => non_negative(problems, field, number),
    }
}
