//! What is added to an object, or refused, by rules that its kind does not know: the built-in admission.
//!
//! Not here yet: quotas, limit ranges, priorities, webhooks. A pod's service account is named and, unless it is `default`, must exist.

mod access;
mod escalation;
mod namespace;
mod node_restriction;
mod pod;
mod storage;

pub(crate) use namespace::living_namespace;

use std::sync::Arc;

use serde_json::Value;
use shoal_api::Status;
use shoal_api::rbac::Policy;
use shoal_store::View;

use crate::authentication::user::User;

/// One write as admission sees it.
pub(crate) struct Admission<'a> {
    pub user: &'a User,
    /// `core/pods`.
    pub storage: &'a str,
    pub subresource: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
    pub view: &'a View,
    /// The RBAC policy, while it can be read.
    pub policy: Option<Arc<Policy>>,
}

/// Completes an object that is to be created, or refuses it.
pub(crate) fn create(admission: &Admission<'_>, object: &mut Value) -> Result<(), Status> {
    node_restriction::create(admission, object)?;
    escalation::check(admission, object)?;
    // A mirror shows what runs already: nothing is added to it.
    if admission.storage == "core/pods" && admission.subresource.is_none() && !is_mirror(object) {
        pod::complete(admission, object)?;
    }
    storage::complete(admission, object);
    Ok(())
}

fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some()
}

/// Refuses a change that the user may not make.
pub(crate) fn update(admission: &Admission<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    let same =
        ["rules", "aggregationRule", "roleRef", "subjects"].iter().all(|field| new.get(*field) == old.get(*field));
    if !same {
        escalation::check(admission, new)?;
    }
    storage::check_growth(admission, new, old)?;
    node_restriction::update(admission, new, old)
}

/// Refuses a deletion that the user may not make, or that nobody may make.
pub(crate) fn delete(admission: &Admission<'_>, old: &Value) -> Result<(), Status> {
    if admission.storage == "core/namespaces"
        && ["default", "kube-system", "kube-public", "kube-node-lease"].contains(&admission.name)
    {
        return Err(Status::forbidden("", "namespaces", admission.name, "this namespace may not be deleted"));
    }
    node_restriction::delete(admission, old)
}
