//! The nodes and what is on them, kept up to date pod by pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::quantity::thousandths;
use crate::request::{Amounts, HostPort, Request, add};
use crate::storage::{Storage, claim_keys};

/// One node and what its pods take.
#[derive(Debug, Clone)]
pub struct NodeState {
    pub(crate) node: Arc<Node>,
    pub(crate) allocatable: Amounts,
    pub(crate) taken: Amounts,
    pub(crate) host_ports: BTreeMap<HostPort, u32>,
    /// How many pods of each group (the same controller, in the same namespace) are here.
    pub(crate) groups: BTreeMap<String, u32>,
    pub(crate) pods: u32,
    /// The claims that the pods here use, by namespace and name.
    pub(crate) claims: BTreeSet<(String, String)>,
}

/// All nodes, by name, and the storage that pods claim.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(crate) nodes: BTreeMap<String, NodeState>,
    pub(crate) storage: Storage,
}

impl Snapshot {
    /// The cluster of these nodes and pods; pods that are over, or on no node, take nothing.
    pub fn new(nodes: impl IntoIterator<Item = Arc<Node>>, pods: impl IntoIterator<Item = Arc<Pod>>) -> Self {
        let mut snapshot = Self::default();
        for node in nodes {
            snapshot.put_node(node);
        }
        for pod in pods {
            if let Some(node) =
                pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|_| takes_room(&pod))
            {
                snapshot.add(&pod, node);
            }
        }
        snapshot
    }

    /// The same with this storage.
    #[must_use]
    pub fn with_storage(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// The storage that pods claim.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    fn put_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let amounts = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let allocatable =
            amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), thousandths(amount))).collect();
        let state = NodeState {
            node,
            allocatable,
            taken: Amounts::new(),
            host_ports: BTreeMap::new(),
            groups: BTreeMap::new(),
            pods: 0,
            claims: BTreeSet::new(),
        };
        self.nodes.insert(name, state);
    }

    /// Counts `pod` as being on `node`, as is done when it was just placed there.
    pub fn add(&mut self, pod: &Pod, node: &str) {
        let Some(state) = self.nodes.get_mut(node) else { return };
        let request = Request::of(pod);
        add(&mut state.taken, &request.amounts);
        for port in request.host_ports {
            *state.host_ports.entry(port).or_default() += 1;
        }
        *state.groups.entry(group(pod)).or_default() += 1;
        state.pods += 1;
        state.claims.extend(claim_keys(pod));
    }
}

/// Whether a pod takes room on its node.
fn takes_room(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// What `pod` is one of several of: its controller, or itself.
pub(crate) fn group(pod: &Pod) -> String {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone());
    controller.or_else(|| pod.metadata.uid.clone()).unwrap_or_default()
}
