//! What a node may write: itself, its lease, its own pods' status, events about them. Nothing of its neighbours.
//!
//! Authorization has let the node as far as the kind and verb; here the object's content decides.

use serde_json::Value;
use shoal_api::{Status, metadata};

use super::Admission;
use crate::{keys, stored};

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
        ("core/pods", None) => mirror_pod(admission, object, node),
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

/// A node creates pods only as mirrors of its own static pods, and those may use nothing of the API (Kubernetes: NodeRestriction).
fn mirror_pod(admission: &Admission<'_>, pod: &Value, node: &str) -> Result<(), Status> {
    if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_none() {
        let message = format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        );
        return refuse(admission, &message);
    }
    own_pod(admission, pod, node)?;
    check_owner(admission, pod, node)?;
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .any(|field| spec.get(*field).and_then(Value::as_str).is_some_and(|name| !name.is_empty()));
    if account {
        return refuse(admission, &format!("node {node:?} can not create pods that reference a service account"));
    }
    match referenced(spec) {
        Some(what) => refuse(admission, &format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// The node itself, and it alone, owns a mirror.
fn check_owner(admission: &Admission<'_>, pod: &Value, node: &str) -> Result<(), Status> {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let [owner] = owners else {
        return refuse(
            admission,
            &format!("node {node:?} can only create pods with a single owner reference set to itself"),
        );
    };
    let is = |field: &str, value: &str| owner.get(field).and_then(Value::as_str) == Some(value);
    if !(is("apiVersion", "v1") && is("kind", "Node") && is("name", node)) {
        return refuse(admission, &format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner.get("controller") != Some(&Value::Bool(true))
        || owner.get("blockOwnerDeletion") == Some(&Value::Bool(true))
    {
        let message = format!(
            "node {node:?} can only create pods with an owner reference that is a controller and blocks no deletion"
        );
        return refuse(admission, &message);
    }
    let known = admission.view.get(&keys::object("core/nodes", None, node));
    let known = known.and_then(|entry| stored::decode(&entry.value, entry.modified).ok());
    match known {
        Some(known) if metadata::uid(&known) == owner.get("uid").and_then(Value::as_str) => Ok(()),
        _ => refuse(admission, &format!("node {node:?} can only create pods whose owner reference has its own UID")),
    }
}

/// What of the API the specification refers to, wherever in it.
fn referenced(spec: &Value) -> Option<&'static str> {
    const NAMES: [(&str, &str); 10] = [
        ("secret", "secrets"),
        ("secretRef", "secrets"),
        ("secretKeyRef", "secrets"),
        ("imagePullSecrets", "secrets"),
        ("configMap", "configmaps"),
        ("configMapRef", "configmaps"),
        ("configMapKeyRef", "configmaps"),
        ("serviceAccountToken", "service account tokens"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("resourceClaims", "resourceclaims"),
    ];
    match spec {
        Value::Object(fields) => fields.iter().find_map(|(field, value)| {
            let own = NAMES.iter().find(|(name, _)| name == field).map(|(_, what)| *what);
            own.filter(|_| !value.is_null() && value != &serde_json::json!([])).or_else(|| referenced(value))
        }),
        Value::Array(items) => items.iter().find_map(referenced),
        _ => None,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_mirror_may_not_use_is_found_wherever_it_stands() {
        for (spec, what) in [
            (json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}), Some("secrets")),
            (
                json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}),
                Some("service account tokens"),
            ),
            (json!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "c"}}}]}]}), Some("configmaps")),
            (json!({"imagePullSecrets": [{"name": "s"}]}), Some("secrets")),
            (
                json!({"imagePullSecrets": [], "volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "secret"}]}),
                None,
            ),
        ] {
            assert_eq!(referenced(&spec), what, "{spec}");
        }
    }
}
