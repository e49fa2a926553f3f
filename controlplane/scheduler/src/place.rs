//! The decision.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use crate::filters::refusals;
use crate::request::Request;
use crate::scores::score;
use crate::snapshot::Snapshot;

/// Kubernetes' words for a claim of one pod at a time that has its pod.
const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// The name of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// No node can take the pod: how many there are, and how many each reason rules out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes each reason holds for; a node may have several.
    pub reasons: BTreeMap<String, usize>,
    /// Why no node needed to be looked at: it is about the pod itself.
    pub because: Option<String>,
}

/// As Kubernetes says it: `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.`
impl fmt::Display for Unschedulable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return formatter.write_str("no nodes available to schedule pods");
        }
        if let Some(because) = &self.because {
            return write!(formatter, "0/{} nodes are available: {because}.", self.nodes);
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        write!(formatter, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// The node where `pod` goes. Of equally good nodes it is the one whose name comes first.
///
/// # Errors
/// [`Unschedulable`] when every node refuses it.
pub fn place(pod: &Pod, cluster: &Snapshot) -> Result<NodeName, Unschedulable> {
    let request = Request::of(pod);
    let nodes = cluster.nodes.len();
    let refuse = |because| Unschedulable { nodes, reasons: BTreeMap::new(), because: Some(because) };
    let claimed = cluster.storage.claimed(pod).map_err(refuse)?;
    let is_used = |claim: &_| cluster.nodes.values().any(|state| state.claims.contains_key(claim));
    if claimed.exclusive.iter().any(is_used) {
        return Err(refuse(IN_USE.to_owned()));
    }
    let mut reasons = BTreeMap::new();
    let mut best = None;
    for (name, state) in &cluster.nodes {
        let mut refused = refusals(pod, &request, state);
        if refused.is_empty() {
            refused.extend(cluster.storage.refusals(&claimed, &state.node));
        }
        if refused.is_empty() {
            let score = score(pod, &request, state);
            if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                best = Some((score, name));
            }
        }
        for reason in refused {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    best.map(|(_, name)| NodeName(name.clone())).ok_or(Unschedulable { nodes, reasons, because: None })
}
