//! What rules a node out. The texts are those that Kubernetes' scheduler gives, because people search for them.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::request::Request;
use crate::snapshot::NodeState;

/// Why `pod` cannot go to this node; empty if it can.
pub(crate) fn refusals(pod: &Pod, request: &Request, state: &NodeState) -> Vec<String> {
    let node = &*state.node;
    if is_cordoned(node) && !tolerates_all(pod, &cordon()) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    if let Some(taint) = untolerated(pod, node) {
        return vec![match taint.value.as_deref().unwrap_or_default() {
            "" => format!("node(s) had untolerated taint {{{}: }}", taint.key),
            value => format!("node(s) had untolerated taint {{{}: {value}}}", taint.key),
        }];
    }
    if !is_ready(node) {
        return vec!["node(s) were not ready".to_owned()];
    }
    if !is_selected(pod, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    if request.host_ports.iter().any(|port| state.host_ports.keys().any(|taken| port.collides(taken))) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    insufficient(request, state)
}

fn insufficient(request: &Request, state: &NodeState) -> Vec<String> {
    let mut lacking = Vec::new();
    let most = state.allocatable.get("pods").map_or(i128::MAX, |pods| pods / 1000);
    if i128::from(state.pods) + 1 > most {
        lacking.push("Too many pods".to_owned());
    }
    for (name, amount) in &request.amounts {
        let allocatable = state.allocatable.get(name).copied().unwrap_or_default();
        let taken = state.taken.get(name).copied().unwrap_or_default();
        if taken + amount > allocatable {
            lacking.push(format!("Insufficient {name}"));
        }
    }
    lacking
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default()
}

fn cordon() -> Taint {
    Taint { key: "node.kubernetes.io/unschedulable".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn untolerated<'a>(pod: &Pod, node: &'a Node) -> Option<&'a Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|taint| taint.effect != "PreferNoSchedule").find(|taint| !tolerates_all(pod, taint))
}

fn tolerates_all(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Kubernetes: "Taints and Tolerations", matching.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let is_any = toleration.operator.as_deref() == Some("Exists");
    let same_value = toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && if key.is_empty() { is_any } else { key == taint.key && (is_any || same_value) }
}

fn is_selected(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let by_labels = spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    by_labels && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| fits(term, node)))
}

/// Whether a node fits all of a term; a term that asks nothing fits no node.
pub(crate) fn fits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| if key == "metadata.name" { node.metadata.name.as_deref() } else { None };
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|requirement| meets(label(&requirement.key), requirement))
        && fields.iter().all(|requirement| meets(field(&requirement.key), requirement))
}

fn meets(value: Option<&str>, requirement: &NodeSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, limit)| value > limit),
        "Lt" => numbers().is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}
