//! The nodes and what is on them, kept up to date pod by pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::quantity::thousandths;
use crate::request::{Amounts, HostPort, Request, add};
use crate::storage::{Storage, claim_keys};

/// One node and what its pods take.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeState {
    pub(crate) node: Arc<Node>,
    pub(crate) allocatable: Amounts,
    pub(crate) taken: Amounts,
    pub(crate) host_ports: BTreeMap<HostPort, u32>,
    /// How many pods of each group (the same controller, in the same namespace) are here.
    pub(crate) groups: BTreeMap<String, u32>,
    pub(crate) pods: u32,
    /// The claims that the pods here use, by namespace and name, and how many do.
    pub(crate) claims: BTreeMap<(String, String), u32>,
}

/// All nodes, by name, the pods that take room on them, and the storage that pods claim.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(crate) nodes: BTreeMap<String, NodeState>,
    /// Each pod that is counted, as it was when it was counted, and its node's name. The node need not exist.
    placed: HashMap<String, (Arc<Pod>, String)>,
    pub(crate) storage: Storage,
}

impl Snapshot {
    /// The cluster of these nodes and pods; pods that are over, or on no node, take nothing.
    pub fn new(nodes: impl IntoIterator<Item = Arc<Node>>, pods: impl IntoIterator<Item = Arc<Pod>>) -> Self {
        let mut snapshot = Self::default();
        snapshot.set_nodes(nodes);
        for pod in pods {
            snapshot.observe(&pod);
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

    /// Takes the storage as it is now.
    pub fn set_storage(&mut self, storage: Storage) {
        self.storage = storage;
    }

    /// Takes the nodes as they are now, and no others.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = Arc<Node>>) {
        let mut before = std::mem::take(&mut self.nodes);
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let state = match before.remove(&name) {
                Some(state) if Arc::ptr_eq(&state.node, &node) => state,
                Some(state) => NodeState { allocatable: allocatable(&node), node, ..state },
                None => {
                    let mut state = NodeState::new(node);
                    let here = self.placed.values().filter(|(_, on)| *on == name);
                    here.for_each(|(pod, _)| state.count(pod));
                    state
                }
            };
            self.nodes.insert(name, state);
        }
    }

    /// Counts `pod` as the API shows it: on the node that it names, or nowhere if it names none or is over.
    pub fn observe(&mut self, pod: &Arc<Pod>) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
        match node.filter(|_| takes_room(pod)) {
            Some(node) => self.add(pod, node),
            None => self.remove(pod),
        }
    }

    /// Counts `pod` as being on `node`, as is done when it was just placed there, and nowhere else.
    pub fn add(&mut self, pod: &Arc<Pod>, node: &str) {
        self.remove(pod);
        self.placed.insert(identity(pod), (pod.clone(), node.to_owned()));
        if let Some(state) = self.nodes.get_mut(node) {
            state.count(pod);
        }
    }

    /// Counts `pod`, in whatever state it is by now, no more.
    pub fn remove(&mut self, pod: &Pod) {
        // What was counted is what must be taken away, and not what the pod wants today.
        let Some((counted, node)) = self.placed.remove(&identity(pod)) else { return };
        if let Some(state) = self.nodes.get_mut(&node) {
            state.discount(&counted);
        }
    }
}

impl NodeState {
    fn new(node: Arc<Node>) -> Self {
        Self {
            allocatable: allocatable(&node),
            node,
            taken: Amounts::new(),
            host_ports: BTreeMap::new(),
            groups: BTreeMap::new(),
            pods: 0,
            claims: BTreeMap::new(),
        }
    }

    fn count(&mut self, pod: &Pod) {
        let request = Request::of(pod);
        add(&mut self.taken, &request.amounts);
        for port in request.host_ports {
            *self.host_ports.entry(port).or_default() += 1;
        }
        *self.groups.entry(group(pod)).or_default() += 1;
        self.pods += 1;
        for claim in claim_keys(pod) {
            *self.claims.entry(claim).or_default() += 1;
        }
    }

    fn discount(&mut self, pod: &Pod) {
        let request = Request::of(pod);
        for (name, amount) in &request.amounts {
            if let Some(taken) = self.taken.get_mut(name) {
                *taken -= amount;
            }
        }
        self.taken.retain(|_, taken| *taken > 0);
        for port in request.host_ports {
            one_less(&mut self.host_ports, &port);
        }
        one_less(&mut self.groups, &group(pod));
        self.pods = self.pods.saturating_sub(1);
        for claim in claim_keys(pod) {
            one_less(&mut self.claims, &claim);
        }
    }
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn allocatable(node: &Node) -> Amounts {
    let status = node.status.as_ref();
    let amounts = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), thousandths(amount))).collect()
}

/// What tells a pod from all others, also from one of the same name.
fn identity(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    metadata.uid.clone().unwrap_or_else(|| {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn node(name: &str) -> Arc<Node> {
        let status = json!({"allocatable": {"cpu": "4"}});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).expect("a node"))
    }

    fn pod(number: u8, form: u8, node: Option<u8>) -> Arc<Pod> {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": format!("o{}", number % 2), "controller": true});
        let requests = if form == 0 { json!({}) } else { json!({"cpu": format!("{form}00m")}) };
        let container = json!({"name": "c", "resources": {"requests": requests}, "ports": [{"containerPort": 80, "hostPort": 80 + u32::from(form)}]});
        let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": format!("v{form}")}});
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{number}"), "uid": format!("u{number}"), "ownerReferences": [owner]},
                "spec": {"nodeName": node.map(|node| format!("n{node}")), "containers": [container], "volumes": [volume]},
                "status": {"phase": if form == 3 { "Succeeded" } else { "Running" }},
            }))
            .expect("a pod"),
        )
    }

    proptest! {
        #[test]
        fn what_is_kept_up_to_date_is_what_a_fresh_look_shows(
            steps in prop::collection::vec((0u8..6, 0u8..4, prop::option::of(0u8..3), any::<bool>(), 0u8..8), 0..60),
        ) {
            let mut kept = Snapshot::default();
            let mut pods: BTreeMap<u8, Arc<Pod>> = BTreeMap::new();
            let mut nodes: Vec<Arc<Node>> = Vec::new();
            for (number, form, on, goes, present) in steps {
                nodes = (0..3).filter(|n| present & (1 << n) != 0).map(|n| node(&format!("n{n}"))).collect();
                kept.set_nodes(nodes.clone());
                if goes {
                    if let Some(pod) = pods.remove(&number) {
                        kept.remove(&pod);
                    }
                } else {
                    let pod = pod(number, form, on);
                    kept.observe(&pod);
                    pods.insert(number, pod);
                }
            }
            let fresh = Snapshot::new(nodes, pods.into_values());
            prop_assert_eq!(kept.nodes, fresh.nodes);
        }
    }
}
