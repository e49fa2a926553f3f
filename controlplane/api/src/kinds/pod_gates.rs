//! Scheduling gates: a pod that has some is no scheduler's business until whoever put them there has taken them away. Until
//! then it may still be said more narrowly where the pod may go.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::table::cells::{list, text};
use crate::validation::{FieldError, invalid, names};

const GATES: &str = "/spec/schedulingGates";
const REQUIRED_TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";

/// Whether a pod waits for its gates.
pub(crate) fn is_gated(pod: &Value) -> bool {
    !list(pod, GATES).is_empty()
}

/// What the API says of a pod that is born with gates.
pub(super) fn condition() -> Value {
    json!({
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastProbeTime": null, "lastTransitionTime": null,
    })
}

/// Appends what is wrong with the gates of the spec at `path`.
pub(super) fn check(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, gate) in list(spec, "/schedulingGates").iter().enumerate() {
        let field = format!("{path}.schedulingGates[{index}].name");
        match text(gate, "/name") {
            "" => problems.push(FieldError::required(field, "")),
            name if !seen.insert(name) => problems.push(FieldError::duplicate(field, name)),
            name => invalid(problems, &field, name, names::qualified_name(name)),
        }
    }
}

/// Appends what is wrong with a pod that is created with gates.
pub(super) fn check_new(pod: &Value, problems: &mut Vec<FieldError>) {
    if is_gated(pod) && !text(pod, "/spec/nodeName").is_empty() {
        problems
            .push(FieldError::forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"));
    }
}

/// Appends the gates that a change would add.
pub(super) fn check_change(new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
    let known = list(old, GATES);
    for (index, gate) in list(new, GATES).iter().enumerate() {
        if !known.iter().any(|known| text(known, "/name") == text(gate, "/name")) {
            let message = format!("only deletion is allowed, but found new scheduling gate {:?}", text(gate, "/name"));
            problems.push(FieldError::forbidden(format!("spec.schedulingGates[{index}].name"), message));
        }
    }
}

/// Takes out of `spec`, a copy of the spec of `pod`, what may differ from `old` where `old` waits for gates: gates that are gone,
/// and words that leave the pod fewer nodes (Kubernetes: mutable scheduling directives).
pub(super) fn remove_what_may_change(spec: &mut Value, pod: &Value, old: &Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    fields.remove("schedulingGates");
    if !is_gated(old) {
        return;
    }
    let selector =
        |pod: &Value| pod.pointer("/spec/nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
    let chosen = selector(pod);
    if selector(old).iter().all(|(label, value)| chosen.get(label) == Some(value)) {
        fields.remove("nodeSelector");
    }
    if !narrows(pod.pointer(REQUIRED_TERMS), old.pointer(REQUIRED_TERMS)) {
        return;
    }
    if let Some(affinity) = fields.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
        if affinity.is_empty() {
            fields.remove("affinity");
        }
    }
}

/// Whether the new terms allow no node that the old ones did not: each of them says what it said, and perhaps more.
fn narrows(new: Option<&Value>, old: Option<&Value>) -> bool {
    let Some(old) = old else { return true };
    let terms = |selector: &Value| list(selector, "/nodeSelectorTerms").to_vec();
    let (new, old) = (new.map(terms).unwrap_or_default(), terms(old));
    let keeps =
        |new: &Value, old: &Value, field: &str| list(old, field).iter().all(|said| list(new, field).contains(said));
    new.len() == old.len()
        && new
            .iter()
            .zip(&old)
            .all(|(new, old)| keeps(new, old, "/matchExpressions") && keeps(new, old, "/matchFields"))
}
