//! What a pod needs of a node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::quantity::thousandths;

/// Amounts of resources, in thousandths of their units, by name: `cpu`, `memory`, ...
pub(crate) type Amounts = BTreeMap<String, i128>;

/// What a pod takes on the node that it is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub(crate) amounts: Amounts,
    /// Protocol and port on the node's address.
    pub(crate) host_ports: BTreeSet<(String, i32)>,
}

impl Request {
    /// What `pod` takes: the sum of its containers, or its largest init container if that is more; and its overhead.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut amounts = Amounts::new();
        let mut running = Amounts::new();
        for container in spec.init_containers.iter().flatten() {
            let wanted = requests(container.resources.as_ref());
            if container.restart_policy.as_deref() == Some("Always") {
                add(&mut running, &wanted);
                continue;
            }
            let mut peak = running.clone();
            add(&mut peak, &wanted);
            raise(&mut amounts, &peak);
        }
        for container in &spec.containers {
            add(&mut running, &requests(container.resources.as_ref()));
        }
        raise(&mut amounts, &running);
        for (name, amount) in spec.overhead.iter().flatten() {
            *amounts.entry(name.clone()).or_default() += thousandths(amount);
        }
        amounts.retain(|_, amount| *amount > 0);
        let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
        let host_ports = ports
            .filter_map(|port| Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.host_port?)))
            .filter(|(_, port)| *port > 0)
            .collect();
        Self { amounts, host_ports }
    }
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.into_iter().flatten().map(|(name, amount)| (name.clone(), thousandths(amount))).collect()
}

pub(crate) fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += amount;
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let present = most.entry(name.clone()).or_default();
        *present = (*present).max(*amount);
    }
}
