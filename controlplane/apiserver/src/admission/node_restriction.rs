//! What a node may write: itself, its lease, its own pods' status, events about them. Nothing of its neighbours.
//!
//! Authorization has let the node as far as the kind and verb; here the object's content decides.

use serde_json::Value;
use shoal_api::{Status, metadata};

use super::Admission;

/// Labels that a node may not give itself, since workloads trust them to isolate nodes.
const RESTRICTED_PREFIX: &str = "node-restriction.kubernetes.io/";

pub(super) fn create(admission: &Admission<'_>, object: &Value) -> Result<(), Status> {
    let Some(node) = admission.user.node() else { return Ok(()) };
    match (admission.storage, admission.subresource) {
        ("core/nodes", _) => {
            own_node(admission, node)?;
            restricted_labels(admission, object, &Value::Null)
        }
        ("core/pods", Some("eviction")) => Ok(()),
        ("core/pods", _) => refuse(admission, "a node can only evict and report its own pods, not create pods"),
        ("coordination.k8s.io/leases", _) => own_lease(admission, node),
        _ => Ok(()),
    }
}

pub(super) fn update(admission: &Admission<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    let Some(node) = admission.user.node() else { return Ok(()) };
    match (admission.storage, admission.subresource) {
        ("core/nodes", _) => {
            own_node(admission, node)?;
            if admission.subresource.is_none() && new.pointer("/spec/taints") != old.pointer("/spec/taints") {
                return refuse(admission, "a node may not change its own taints");
            }
            restricted_labels(admission, new, old)
        }
        ("core/pods", Some("status")) => own_pod(admission, old, node),
        ("core/pods", _) => refuse(admission, "a node can only update the status of its own pods"),
        ("coordination.k8s.io/leases", _) => own_lease(admission, node),
        _ => Ok(()),
    }
}

pub(super) fn delete(admission: &Admission<'_>, old: &Value) -> Result<(), Status> {
    let Some(node) = admission.user.node() else { return Ok(()) };
    match admission.storage {
        "core/nodes" => own_node(admission, node),
        "core/pods" => own_pod(admission, old, node),
        "coordination.k8s.io/leases" => own_lease(admission, node),
        _ => Ok(()),
    }
}

fn own_node(admission: &Admission<'_>, node: &str) -> Result<(), Status> {
    if admission.name == node {
        Ok(())
    } else {
        refuse(admission, &format!("node {node:?} is not allowed to modify node {:?}", admission.name))
    }
}

fn own_lease(admission: &Admission<'_>, node: &str) -> Result<(), Status> {
    if admission.namespace == Some("kube-node-lease") && admission.name == node {
        return Ok(());
    }
    refuse(admission, "a node can only access its own lease in \"kube-node-lease\"")
}

fn own_pod(admission: &Admission<'_>, pod: &Value, node: &str) -> Result<(), Status> {
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node) {
        return Ok(());
    }
    refuse(admission, &format!("node {node:?} can only change pods with spec.nodeName set to itself"))
}

fn restricted_labels(admission: &Admission<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    let label =
        |object: &Value, key: &str| object.pointer("/metadata/labels").and_then(|labels| labels.get(key)).cloned();
    let changed = [new, old]
        .iter()
        .filter_map(|object| metadata::labels(object))
        .flat_map(|labels| labels.keys())
        .any(|key| key.starts_with(RESTRICTED_PREFIX) && label(new, key) != label(old, key));
    if changed {
        refuse(admission, "a node may not set labels of the node-restriction.kubernetes.io/ prefix")
    } else {
        Ok(())
    }
}

fn refuse(admission: &Admission<'_>, message: &str) -> Result<(), Status> {
    let (group, resource) = admission.storage.split_once('/').unwrap_or(("core", admission.storage));
    let group = if group == "core" { "" } else { group };
    Err(Status::forbidden(group, resource, admission.name, message))
}
