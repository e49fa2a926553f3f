//! Pods: the service account's name, pull secrets and token, and the tolerations that let a pod stay for a while on a node that is lost.

use serde_json::{Value, json};
use shoal_api::Status;

use super::{Admission, access};
use crate::{errors, keys, stored};

/// How long a pod stays on a node that is not ready or not reachable, unless it says otherwise; as in Kubernetes.
const TOLERATION_SECONDS: i64 = 300;

/// Names the service account, takes its pull secrets if the pod names none, mounts its token if that is asked for (Kubernetes: the
/// plugin `ServiceAccount`), and tolerates lost nodes for [`TOLERATION_SECONDS`].
///
/// # Errors
/// 403 when the pod names a service account that does not exist.
pub(super) fn complete(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .find_map(|field| spec.get(*field).and_then(Value::as_str).filter(|name| !name.is_empty()))
        .unwrap_or("default")
        .to_owned();
    let entry = admission.view.get(&keys::object("core/serviceaccounts", admission.namespace, &account));
    if account != "default" && entry.is_none() {
        let namespace = admission.namespace.unwrap_or_default();
        let message =
            format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found");
        return Err(Status::forbidden("", "pods", admission.name, &message));
    }
    let object = entry.map(|entry| stored::decode(&entry.value, entry.modified)).transpose();
    let mut object = object.map_err(|error| errors::corrupt(&error))?;
    if access::is_wanted(spec, object.as_ref()) {
        access::mount(spec);
    }
    let names_none = spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
    let secrets = object.as_mut().and_then(|object| object.get_mut("imagePullSecrets")).map(Value::take);
    if let Some(secrets) = secrets.filter(|secrets| secrets.is_array() && names_none) {
        spec.insert("imagePullSecrets".to_owned(), secrets);
    }
    spec.insert("serviceAccountName".to_owned(), account.clone().into());
    spec.insert("serviceAccount".to_owned(), account.into());
    if let Some(tolerations) = spec.entry("tolerations").or_insert_with(|| json!([])).as_array_mut() {
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            if !tolerations.iter().any(|toleration| tolerates_no_execute(toleration, key)) {
                tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}));
            }
        }
    }
    Ok(())
}

fn tolerates_no_execute(toleration: &Value, key: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_of_everything_counts() {
        assert!(tolerates_no_execute(&json!({"operator": "Exists"}), "node.kubernetes.io/not-ready"));
        assert!(!tolerates_no_execute(
            &json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}),
            "node.kubernetes.io/not-ready"
        ));
    }
}
