//! What a pod's claims lead to on this node: a volume's object in, the directory that it means out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod,
};
use serde::{Deserialize, Serialize};

use super::spec;

/// Who makes the volumes that are directories of ours.
const PROVISIONER: &str = "shoal.dev/local-path";

/// A directory behind a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Directory {
    /// One that this agent keeps, by the name of the volume.
    Kept(String),
    /// One in memory.
    InMemory(PathBuf),
    /// One of the node.
    OfNode {
        /// Where.
        path: PathBuf,
        /// Whether it is made when it is missing.
        create: bool,
    },
}

/// The claims of a pod: the names of the volume in the pod and of the claim.
pub fn claims(pod: &Pod) -> Vec<(String, String)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let named = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some((volume.name.clone(), claim.claim_name.clone())),
        (None, Some(_)) => Some((volume.name.clone(), format!("{}-{}", spec::name(pod), volume.name))),
        (None, None) => None,
    });
    named.collect()
}

/// The name of the claim's volume.
///
/// # Errors
/// A sentence, if it has none or is not this pod's to use.
pub fn volume_name<'c>(pod: &Pod, claim: &'c PersistentVolumeClaim, is_own: bool) -> Result<&'c str, String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    if is_own && !owners.iter().any(|owner| owner.uid == spec::uid(pod)) {
        return Err(format!("PVC {name:?} was not created for this pod, which is not its owner"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("can't start pod because PVC {name:?} is being deleted"));
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    volume.filter(|_| phase == Some("Bound")).ok_or_else(|| format!("PersistentVolumeClaim is not bound: {name:?}"))
}

/// The directory that `volume` is on the node with this name and these labels.
///
/// # Errors
/// A sentence: it is another claim's, on another node, or of a type that a Wasm pod cannot have.
pub fn directory(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    node: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Directory, String> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let spec = volume.spec.as_ref().ok_or_else(|| format!("PersistentVolume {name:?} has no spec"))?;
    if spec.claim_ref.as_ref().and_then(|claim| claim.uid.as_ref()) != claim.metadata.uid.as_ref() {
        return Err(format!("PersistentVolume {name:?} belongs to another claim"));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("PersistentVolume {name:?}: spec.volumeMode Block: a Wasm module has no block devices"));
    }
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    if required.is_some_and(|required| !required.node_selector_terms.iter().any(|term| fits(term, node, labels))) {
        return Err(format!("PersistentVolume {name:?}: no matching NodeSelectorTerms: it is on another node"));
    }
    let annotation = |key: &str| volume.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    if let Some(host) = &spec.host_path {
        return match host.type_.as_deref().unwrap_or_default() {
            kind @ ("" | "Directory" | "DirectoryOrCreate") => {
                Ok(Directory::OfNode { path: host.path.clone().into(), create: kind == "DirectoryOrCreate" })
            }
            kind => Err(format!("PersistentVolume {name:?}: spec.hostPath.type {kind}: only directories are mounted")),
        };
    }
    match &spec.local {
        Some(_) if annotation("pv.kubernetes.io/provisioned-by") == Some(PROVISIONER) => Ok(Directory::Kept(name)),
        Some(local) => Ok(Directory::OfNode { path: local.path.clone().into(), create: false }),
        None => {
            Err(format!("PersistentVolume {name:?}: only spec.local and spec.hostPath can be mounted into a Wasm pod"))
        }
    }
}

fn fits(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| (key == "metadata.name").then_some(node);
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|wanted| meets(labels.get(&wanted.key).map(String::as_str), wanted))
        && fields.iter().all(|wanted| meets(field(&wanted.key), wanted))
}

fn meets(value: Option<&str>, wanted: &NodeSelectorRequirement) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match wanted.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, limit)| value > limit),
        "Lt" => numbers().is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim() -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "data", "uid": "1"}, "spec": {"volumeName": "v"},
            "status": {"phase": "Bound"}}))
        .expect("a claim")
    }

    fn of(source: &Value, annotations: &Value) -> Result<Directory, String> {
        let mut volume =
            json!({"metadata": {"name": "v", "annotations": annotations}, "spec": {"claimRef": {"uid": "1"}}});
        volume["spec"].as_object_mut().expect("an object").extend(source.as_object().expect("an object").clone());
        let volume = serde_json::from_value(volume).expect("a volume");
        directory(&claim(), &volume, "n1", &[("zone".to_owned(), "a".to_owned())].into())
    }

    #[test]
    fn a_volume_is_a_directory_or_says_why_not() {
        let ours = json!({"pv.kubernetes.io/provisioned-by": "shoal.dev/local-path"});
        assert_eq!(of(&json!({"local": {"path": "/x"}}), &ours), Ok(Directory::Kept("v".to_owned())));
        let host = |create| Directory::OfNode { path: "/x".into(), create };
        assert_eq!(of(&json!({"local": {"path": "/x"}}), &json!({})), Ok(host(false)));
        assert_eq!(of(&json!({"hostPath": {"path": "/x", "type": "DirectoryOrCreate"}}), &json!({})), Ok(host(true)));
        for (source, said) in [
            (json!({"csi": {"driver": "d", "volumeHandle": "h"}}), "only spec.local and spec.hostPath"),
            (json!({"hostPath": {"path": "/x", "type": "Socket"}}), "spec.hostPath.type Socket"),
            (json!({"hostPath": {"path": "/x"}, "volumeMode": "Block"}), "spec.volumeMode Block"),
            (json!({"hostPath": {"path": "/x"}, "claimRef": {"uid": "2"}}), "belongs to another claim"),
        ] {
            let why = of(&source, &json!({})).expect_err("it cannot be mounted");
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn a_volume_of_another_node_is_not_made_anew_here() {
        let on = |zone: &str| {
            let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
            json!({"local": {"path": "/x"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}})
        };
        assert!(of(&on("a"), &json!({})).is_ok());
        assert!(of(&on("b"), &json!({})).is_err_and(|why| why.contains("another node")));
    }

    #[test]
    fn a_claim_is_used_when_it_is_bound_and_stays() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "p"}})).expect("a pod");
        assert_eq!(volume_name(&pod, &claim(), false), Ok("v"));
        assert!(volume_name(&pod, &claim(), true).is_err_and(|why| why.contains("not its owner")));
        let mut waiting = claim();
        waiting.status = None;
        assert!(volume_name(&pod, &waiting, false).is_err_and(|why| why.contains("not bound")));
        let mut going = claim();
        going.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(volume_name(&pod, &going, false).is_err_and(|why| why.contains("is being deleted")));
    }
}
