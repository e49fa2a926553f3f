//! Volumes that are directories of a node: what one looks like, and which node it is on.
//!
//! The directory itself is the node's to make and to remove; its agent says in an annotation of the Node where it keeps them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shoal_scheduler::storage::class_name;

use crate::volume_claim::reference_to;

/// Who makes them, as classes name it.
pub const PROVISIONER: &str = "shoal.dev/local-path";
/// The annotation of a volume that says who made it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The annotation of a Node that says where its agent keeps volumes.
const DIRECTORY: &str = "shoal.dev/volumes-directory";
/// The annotation of a volume that says on which node it is.
const NODE: &str = "shoal.dev/node";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The volume for `claim` on `node`.
pub(crate) fn make(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&Node>,
) -> Result<PersistentVolume, String> {
    let wish = claim.spec.clone().unwrap_or_default();
    let node = node.ok_or(
        "a directory is made on the node of its first pod: the class needs volumeBindingMode WaitForFirstConsumer",
    )?;
    let node_name = node.metadata.name.clone().unwrap_or_default();
    let directory = node.metadata.annotations.as_ref().and_then(|all| all.get(DIRECTORY));
    let directory = directory.ok_or_else(|| format!("node {node_name:?} has no annotation {DIRECTORY}"))?;
    if wish.selector.is_some() {
        return Err("spec.selector is for volumes that are there, and none of them fits".to_owned());
    }
    if wish.volume_mode.as_deref() == Some("Block") {
        return Err("spec.volumeMode Block: a directory is no block device".to_owned());
    }
    let modes = wish.access_modes.unwrap_or_default();
    if modes.iter().any(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod")) {
        return Err(
            "spec.accessModes: a directory of one node can be ReadWriteOnce or ReadWriteOncePod only".to_owned()
        );
    }
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let hostname = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME)).unwrap_or(&node_name);
    let annotations = [(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned()), (NODE.to_owned(), node_name.clone())];
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(BTreeMap::from(annotations)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(modes),
            capacity: wish.resources.and_then(|resources| resources.requests),
            claim_ref: Some(reference_to(claim)),
            local: Some(LocalVolumeSource { path: format!("{directory}/{name}"), fs_type: None }),
            node_affinity: Some(on_node(hostname)),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: Some(class_name(claim).to_owned()),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

fn on_node(hostname: &str) -> VolumeNodeAffinity {
    let requirement = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![hostname.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
}

/// The node of a volume that we made; `None` for all others.
pub(crate) fn node(volume: &PersistentVolume) -> Option<&str> {
    let annotations = volume.metadata.annotations.as_ref()?;
    let is_ours = annotations.get(PROVISIONED_BY).is_some_and(|provisioner| provisioner == PROVISIONER);
    annotations.get(NODE).map(String::as_str).filter(|_| is_ours)
}
