//! The claims that pods make for themselves: owned by the pod, and gone with it. Kubernetes: "Generic ephemeral volumes".

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shoal_scheduler::storage::made_claim;

use crate::action::{Action, EventKind, controller_reference};
use crate::pods::is_active;

/// The claims that `pod` still needs; `claims` are those of its namespace.
pub fn reconcile(pod: &Pod, claims: &[&PersistentVolumeClaim]) -> Vec<Action> {
    if !is_active(pod) {
        return Vec::new();
    }
    let present: BTreeMap<&str, &PersistentVolumeClaim> =
        claims.iter().filter_map(|claim| Some((claim.metadata.name.as_deref()?, *claim))).collect();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let made = volumes.filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        let name = made_claim(pod, &volume.name);
        match present.get(name.as_str()) {
            Some(claim) if is_owned(claim, pod) => None,
            Some(_) => {
                let message = format!(
                    "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                    text(&pod.metadata.namespace),
                    text(&pod.metadata.namespace),
                    text(&pod.metadata.name)
                );
                Some(Action::event(pod, EventKind::Warning, "FailedCreate", message))
            }
            None => {
                let given = template.metadata.clone().unwrap_or_default();
                Some(Action::create(&PersistentVolumeClaim {
                    metadata: ObjectMeta {
                        name: Some(name),
                        namespace: pod.metadata.namespace.clone(),
                        labels: given.labels,
                        annotations: given.annotations,
                        owner_references: Some(vec![controller_reference(pod)]),
                        ..ObjectMeta::default()
                    },
                    spec: Some(template.spec.clone()),
                    status: None,
                }))
            }
        }
    });
    made.collect()
}

fn text(part: &Option<String>) -> &str {
    part.as_deref().unwrap_or_default()
}

fn is_owned(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref())
}
