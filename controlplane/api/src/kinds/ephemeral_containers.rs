//! Ephemeral containers: what is wrong with them, and with a change of them. They are added to a pod that runs, through a
//! subresource of their own, and stay as they are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod_spec_checks;
use crate::table::cells::{list, text};
use crate::validation::FieldError;

/// What may be said of one (Kubernetes: `allowedEphemeralContainerFields`).
const FIELDS: [&str; 16] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];

/// Appends what is wrong with the ephemeral containers of the spec at `path`.
pub(super) fn check(spec: &Value, path: &str, volumes: &BTreeSet<&str>, problems: &mut Vec<FieldError>) {
    let others: Vec<&str> = ["/containers", "/initContainers"]
        .iter()
        .flat_map(|field| list(spec, field))
        .map(|container| text(container, "/name"))
        .collect();
    let mut seen: BTreeSet<&str> = others.iter().copied().collect();
    for (index, container) in list(spec, "/ephemeralContainers").iter().enumerate() {
        let path = format!("{path}.ephemeralContainers[{index}]");
        let name = text(container, "/name");
        if !name.is_empty() && !seen.insert(name) {
            problems.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        pod_spec_checks::check_container(container, &path, volumes, problems);
        let target = text(container, "/targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            problems.push(FieldError::not_found(format!("{path}.targetContainerName"), target));
        }
        check_fields(container, &path, problems);
    }
}

fn check_fields(container: &Value, path: &str, problems: &mut Vec<FieldError>) {
    const MESSAGE: &str = "cannot be set for an Ephemeral Container";
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    for (field, value) in container.as_object().into_iter().flatten() {
        if !FIELDS.contains(&field.as_str()) && field != "targetContainerName" && !is_empty(value) {
            problems.push(FieldError::forbidden(format!("{path}.{field}"), MESSAGE));
        }
    }
    for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !text(mount, &format!("/{field}")).is_empty() {
                problems.push(FieldError::forbidden(format!("{path}.volumeMounts[{index}].{field}"), MESSAGE));
            }
        }
    }
}

/// Appends what is wrong with a change of a pod's ephemeral containers: they only come.
pub(crate) fn check_change(new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
    let path = "spec.ephemeralContainers";
    for before in list(old, "/spec/ephemeralContainers") {
        let name = text(before, "/name");
        let now = list(new, "/spec/ephemeralContainers").iter().find(|container| text(container, "/name") == name);
        let message = match now {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(now) if now != before => format!("existing ephemeral containers {name:?} may not be changed\n"),
            Some(_) => continue,
        };
        problems.push(FieldError::forbidden(path, message));
    }
}
