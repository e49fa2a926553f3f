//! Node: a worker, as it registers itself.

use serde_json::Value;

use super::{proxy, status};
use crate::metadata;
use crate::resource::{Resource, SelectableField, Strategy};
use crate::table::cells::{AGE, NAME, NONE, UNKNOWN, column, list, text, wide};
use crate::validation::{FieldError, names, quantity};

pub(super) const ROW: Resource = Resource {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[proxy("NodeProxyOptions"), status("", "Node")],
    schema: "io.k8s.api.core.v1.Node",
    storage: "core/nodes",
    columns: &[
        NAME,
        column("Status", "Whether it is ready and takes pods.", |node, _| status_cell(node).into()),
        column("Roles", "What it is for, by its labels.", |node, _| roles(node).into()),
        AGE,
        column("Version", "The version of its agent.", |node, _| text(node, "/status/nodeInfo/kubeletVersion").into()),
        wide("Internal-IP", "Its address in the cluster.", |node, _| address(node, "InternalIP").into()),
        wide("External-IP", "Its address outside.", |node, _| address(node, "ExternalIP").into()),
        wide("OS-Image", "Its operating system.", |node, _| info(node, "osImage").into()),
        wide("Kernel-Version", "Its kernel.", |node, _| info(node, "kernelVersion").into()),
        wide("Container-Runtime", "What runs its pods.", |node, _| info(node, "containerRuntimeVersion").into()),
    ],
    selectable_fields: &[SelectableField {
        name: "spec.unschedulable",
        value: |node| is_unschedulable(node).to_string(),
    }],
    strategy: &Node,
    ..Resource::BASE
};

fn is_unschedulable(node: &Value) -> bool {
    node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false)
}

fn status_cell(node: &Value) -> String {
    let ready = list(node, "/status/conditions").iter().find(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if is_unschedulable(node) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let labels = metadata::labels(node).into_iter().flatten();
    let roles = labels.filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role).filter(|role| !role.is_empty()),
        None => value.as_str().filter(|role| key == "kubernetes.io/role" && !role.is_empty()),
    });
    let mut roles: Vec<&str> = roles.collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    list(node, "/status/addresses")
        .iter()
        .find(|address| text(address, "/type") == kind)
        .map_or(NONE, |address| text(address, "/address"))
}

fn info<'a>(node: &'a Value, field: &str) -> &'a str {
    match node.pointer("/status/nodeInfo").map(|info| info.get(field).and_then(Value::as_str).unwrap_or_default()) {
        None | Some("") => UNKNOWN,
        Some(text) => text,
    }
}

struct Node;

impl Strategy for Node {
    /// A node registers with its status: it is kept.
    fn prepare_create(&self, _object: &mut Value) {}

    fn check(&self, node: &Value, problems: &mut Vec<FieldError>) {
        for (index, taint) in list(node, "/spec/taints").iter().enumerate() {
            let path = format!("spec.taints[{index}]");
            crate::validation::invalid(
                problems,
                &format!("{path}.key"),
                text(taint, "/key"),
                names::qualified_name(text(taint, "/key")),
            );
            crate::validation::one_of(
                problems,
                &format!("{path}.effect"),
                text(taint, "/effect"),
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
        for field in ["capacity", "allocatable"] {
            for (name, value) in
                node.get("status").and_then(|status| status.get(field)).and_then(Value::as_object).into_iter().flatten()
            {
                quantity(problems, &format!("status.{field}.{name}"), value);
            }
        }
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        let of = |node: &Value| text(node, "/spec/podCIDR").to_owned();
        if !of(old).is_empty() && of(new) != of(old) {
            problems.push(FieldError::forbidden(
                "spec.podCIDRs",
                "node updates may not change podCIDR except from \"\" to valid",
            ));
        }
        if !text(old, "/spec/providerID").is_empty() && text(new, "/spec/providerID") != text(old, "/spec/providerID") {
            problems.push(FieldError::forbidden(
                "spec.providerID",
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
    }
}
