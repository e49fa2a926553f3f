//! What Deployments and ReplicaSets have in common: a selector, a template that it must match, a number of replicas.

use serde_json::{Value, json};

use super::{pod_spec, pod_spec_checks};
use crate::metadata::member_mut;
use crate::selector::LabelSelector;
use crate::table::cells::list;
use crate::validation::{FieldError, label_map, non_negative};

/// One replica, and the template's defaults.
pub(super) fn default(object: &mut Value) {
    let spec = member_mut(object, "spec");
    if spec.get("replicas").is_none_or(Value::is_null) {
        spec.insert("replicas".to_owned(), 1.into());
    }
    let template = spec.entry("template").or_insert_with(|| json!({}));
    if let Some(template) = template.get_mut("spec").and_then(Value::as_object_mut) {
        pod_spec::default(template);
    }
}

/// The selector must be there and match the template; the template must be a good pod that always restarts.
pub(super) fn check(object: &Value, problems: &mut Vec<FieldError>) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    non_negative(problems, "spec.replicas", spec.get("replicas"));
    non_negative(problems, "spec.minReadySeconds", spec.get("minReadySeconds"));
    let labels = spec.pointer("/template/metadata/labels").and_then(Value::as_object);
    match spec.get("selector") {
        None | Some(Value::Null) => problems.push(FieldError::required("spec.selector", "")),
        Some(selector) => match LabelSelector::from_value(Some(selector)) {
            Err(status) => problems.push(FieldError::invalid("spec.selector", selector.clone(), status.message)),
            Ok(parsed) if parsed.is_everything() => {
                problems.push(FieldError::invalid(
                    "spec.selector",
                    selector.clone(),
                    "empty selector is invalid for deployment",
                ));
            }
            Ok(parsed) if !parsed.matches(labels) => {
                let labels = labels.cloned().map_or_else(|| json!({}), Value::Object);
                problems.push(FieldError::invalid(
                    "spec.template.metadata.labels",
                    labels,
                    "`selector` does not match template `labels`",
                ));
            }
            Ok(_) => {}
        },
    }
    label_map(problems, "spec.template.labels", labels);
    let template = spec.pointer("/template/spec").unwrap_or(&Value::Null);
    pod_spec_checks::check(template, "spec.template.spec", &["Always"], problems);
    pod_spec_checks::check_host_network(template, "spec.template.spec", false, problems);
    if !list(template, "/ephemeralContainers").is_empty() {
        problems.push(FieldError::forbidden(
            "spec.template.spec.ephemeralContainers",
            "ephemeral containers not allowed in pod template",
        ));
    }
}
