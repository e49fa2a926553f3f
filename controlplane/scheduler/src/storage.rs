//! Claims, volumes and classes: which volume a claim can have, and what a pod's claims say about nodes.
//!
//! The rules by which a volume fits a claim stand here once: the scheduler asks whether a node has such a volume, and the
//! controller that binds claims asks which one it is. Kubernetes: "Persistent Volumes", binding and node affinity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::filters::fits;
use crate::quantity::thousandths;
use crate::selector::selects;

/// The annotation of a claim that has its volume for good.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The annotation of a claim by which the scheduler says for which node its volume is to be.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes people make.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// All claims by namespace and name, all volumes and classes by name.
#[derive(Debug, Clone, Default)]
pub struct Storage {
    claims: BTreeMap<(String, String), Arc<PersistentVolumeClaim>>,
    volumes: BTreeMap<String, Arc<PersistentVolume>>,
    classes: BTreeMap<String, Arc<StorageClass>>,
}

/// What a pod's claims come to: the volumes that it has, and the claims that get theirs when the pod has a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claimed {
    bound: Vec<Arc<PersistentVolume>>,
    open: Vec<Arc<PersistentVolumeClaim>>,
    /// Claims that only one pod at a time may use: namespace and name.
    pub(crate) exclusive: Vec<(String, String)>,
}

impl Storage {
    /// These claims, volumes and classes.
    pub fn new(
        claims: impl IntoIterator<Item = Arc<PersistentVolumeClaim>>,
        volumes: impl IntoIterator<Item = Arc<PersistentVolume>>,
        classes: impl IntoIterator<Item = Arc<StorageClass>>,
    ) -> Self {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let key = |claim: &PersistentVolumeClaim| (name(&claim.metadata.namespace), name(&claim.metadata.name));
        Self {
            claims: claims.into_iter().map(|claim| (key(&claim), claim)).collect(),
            volumes: volumes.into_iter().map(|volume| (name(&volume.metadata.name), volume)).collect(),
            classes: classes.into_iter().map(|class| (name(&class.metadata.name), class)).collect(),
        }
    }

    /// The claims of `pod` that get their volume when it has a node.
    pub fn open_claims(&self, pod: &Pod) -> Vec<Arc<PersistentVolumeClaim>> {
        self.claimed(pod).map(|claimed| claimed.open).unwrap_or_default()
    }

    /// What the claims of `pod` come to.
    ///
    /// # Errors
    /// Why it can be on no node yet, in Kubernetes' words.
    pub(crate) fn claimed(&self, pod: &Pod) -> Result<Claimed, String> {
        let mut claimed = Claimed::default();
        for key in claim_keys(pod) {
            let name = &key.1;
            let Some(claim) = self.claims.get(&key) else {
                return Err(match is_made_for(pod, name) {
                    true => {
                        format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
                    }
                    false => format!("persistentvolumeclaim {name:?} not found"),
                });
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if access_modes(claim).iter().any(|mode| mode == "ReadWriteOncePod") {
                claimed.exclusive.push(key.clone());
            }
            if is_bound(claim) {
                let volume = volume_name(claim);
                let Some(volume) = self.volumes.get(volume) else {
                    return Err(format!(
                        "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                    ));
                };
                claimed.bound.push(volume.clone());
            } else if self.waits(claim) && volume_name(claim).is_empty() {
                claimed.open.push(claim.clone());
            } else {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        Ok(claimed)
    }

    /// Whether the claim gets its volume only when a pod needs it.
    fn waits(&self, claim: &PersistentVolumeClaim) -> bool {
        self.classes.get(class_name(claim)).is_some_and(|class| waits_for_consumer(class))
    }

    /// Why a pod with these claims cannot be on `node`.
    pub(crate) fn refusals(&self, claimed: &Claimed, node: &Node) -> Option<String> {
        if !claimed.bound.iter().all(|volume| is_reachable(volume, node)) {
            return Some("node(s) had volume node affinity conflict".to_owned());
        }
        let mut taken = BTreeSet::new();
        let can_have = |claim: &Arc<PersistentVolumeClaim>| {
            if let Some(selected) = annotation(claim, SELECTED_NODE)
                && node.metadata.name.as_deref() != Some(selected)
            {
                return false;
            }
            let free = self.volumes.values().map(|volume| &**volume).filter(|volume| !taken.contains(&name(volume)));
            match find_volume(claim, free, Some(node)) {
                Some(volume) => taken.insert(name(volume)),
                None => self.classes.get(class_name(claim)).is_some_and(|class| can_provision(class, node)),
            }
        };
        let all = claimed.open.iter().all(can_have);
        (!all).then(|| "node(s) didn't find available persistent volumes to bind".to_owned())
    }
}

/// The claims that a pod names, or that are made for it: namespace and name.
pub fn claim_keys(pod: &Pod) -> Vec<(String, String)> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(made_claim(pod, &volume.name)),
        (None, None) => None,
    });
    names.map(|name| (namespace.clone(), name)).collect()
}

/// The name of the claim that is made for a volume of a pod.
pub fn made_claim(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.metadata.name.as_deref().unwrap_or_default())
}

fn is_made_for(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| volume.ephemeral.is_some() && made_claim(pod, &volume.name) == claim)
}

/// The volume for a claim that has none: the one that was reserved for it, or else the smallest that is free and large enough.
/// With a node, only one that can be used there.
pub fn find_volume<'v>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'v PersistentVolume>,
    node: Option<&Node>,
) -> Option<&'v PersistentVolume> {
    let fitting = volumes.into_iter().filter(|volume| {
        let there = node.is_none_or(|node| is_reachable(volume, node));
        volume.metadata.deletion_timestamp.is_none() && there && mismatch(volume, claim).is_none()
    });
    let mut free: Option<&PersistentVolume> = None;
    for volume in fitting {
        if is_reserved_for(volume, claim) {
            return Some(volume);
        }
        let is_free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        let is_better = |best: &PersistentVolume| (capacity(volume), name(volume)) < (capacity(best), name(best));
        if is_free && is_selected(volume, claim) && free.is_none_or(is_better) {
            free = Some(volume);
        }
    }
    free
}

/// Why the volume cannot be the claim's, whoever has it now; `None` if it can.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let spec = volume.spec.as_ref()?;
    let wish = claim.spec.as_ref()?;
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let offered = spec.access_modes.as_deref().unwrap_or_default();
    if capacity(volume) < request(claim) {
        Some("requested PV is too small")
    } else if class_of_volume(volume) != class_name(claim) {
        Some("storageClassName does not match")
    } else if mode(&spec.volume_mode) != mode(&wish.volume_mode) {
        Some("incompatible volumeMode")
    } else if !access_modes(claim).iter().all(|wanted| offered.contains(wanted)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

fn is_selected(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(|selector| selects(selector, volume.metadata.labels.as_ref()))
}

/// Whether the volume names this claim, and no other of the same name from before.
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let same_uid =
        reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref());
    reference.namespace == claim.metadata.namespace && reference.name == claim.metadata.name && same_uid
}

/// Whether the volume can be used on `node`.
pub fn is_reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| fits(term, node)))
}

/// Whether claims of the class get their volume only when a pod needs it.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

fn can_provision(class: &StorageClass, node: &Node) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    class.provisioner != NO_PROVISIONER && (terms.is_empty() || terms.iter().any(|term| is_in(term, node)))
}

fn is_in(term: &TopologySelectorTerm, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let mut labels = term.match_label_expressions.iter().flatten();
    labels.all(|wanted| label(&wanted.key).is_some_and(|value| wanted.values.contains(value)))
}

/// Whether the claim has its volume for good.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && annotation(claim, BIND_COMPLETED).is_some()
}

/// The name of the claim's volume; empty if it has none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// The class of the claim; empty for none.
pub fn class_name(claim: &PersistentVolumeClaim) -> &str {
    let old = annotation(claim, OLD_CLASS);
    old.or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref()).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let old = volume.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
    old.or_else(|| volume.spec.as_ref()?.storage_class_name.as_ref()).map_or("", String::as_str)
}

fn annotation<'c>(claim: &'c PersistentVolumeClaim, key: &str) -> Option<&'c str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> i128 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| capacity.get("storage")).map(thousandths).unwrap_or_default()
}

fn request(claim: &PersistentVolumeClaim) -> i128 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get("storage")).map(thousandths).unwrap_or_default()
}

fn name(volume: &PersistentVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}
