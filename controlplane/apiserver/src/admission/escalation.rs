//! Nobody hands out what he does not hold: the check on writing roles and bindings.

use serde_json::Value;
use shoal_api::Status;
use shoal_api::rbac::{Policy, Rule, escalation};

use super::Admission;

/// Refuses a role or binding that grants more than its writer has, unless he may `escalate` or `bind` it.
pub(super) fn check(admission: &Admission<'_>, object: &Value) -> Result<(), Status> {
    let Some(resource) = admission.storage.strip_prefix("rbac.authorization.k8s.io/") else { return Ok(()) };
    if admission.user.is_in("system:masters") {
        return Ok(());
    }
    let policy = admission.policy.as_deref();
    let namespace = admission.namespace.unwrap_or_default();
    let (verb, resource_of_role, role, wanted) = match resource {
        "roles" | "clusterroles" => ("escalate", resource, admission.name, Some(Rule::of(object))),
        _ => {
            let reference = object.get("roleRef").unwrap_or(&Value::Null);
            let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
            let plural = if text("kind") == "ClusterRole" { "clusterroles" } else { "roles" };
            (
                "bind",
                plural,
                text("name"),
                policy.and_then(|policy| policy.role_rules(reference, namespace)).map(<[Rule]>::to_vec),
            )
        }
    };
    if policy.is_some_and(|policy| may(policy, admission, verb, resource_of_role, namespace, role)) {
        return Ok(());
    }
    let refuse = |message: &str| Err(Status::forbidden("rbac.authorization.k8s.io", resource, admission.name, message));
    let (Some(policy), Some(wanted)) = (policy, wanted) else {
        return refuse("the role that is bound does not exist");
    };
    let missing = escalation::missing(policy, &admission.user.name, &admission.user.groups, namespace, &wanted);
    if missing.is_empty() {
        Ok(())
    } else {
        refuse(&escalation::refusal(&admission.user.name, &admission.user.groups, &missing))
    }
}

fn may(policy: &Policy, admission: &Admission<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let request = shoal_api::rbac::Attributes {
        user: &admission.user.name,
        groups: &admission.user.groups,
        verb,
        group: "rbac.authorization.k8s.io",
        resource,
        namespace,
        name,
        ..Default::default()
    };
    policy.authorize(&request).is_allowed()
}
