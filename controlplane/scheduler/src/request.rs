//! What a pod needs of a node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerPort, Pod, ResourceRequirements};

use crate::quantity::thousandths;

/// Amounts of resources, in thousandths of their units, by name: `cpu`, `memory`, ...
pub(crate) type Amounts = BTreeMap<String, i128>;

/// What a pod takes on the node that it is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub(crate) amounts: Amounts,
    /// Ports on the node's addresses.
    pub(crate) host_ports: BTreeSet<HostPort>,
}

/// A port on one of a node's addresses, or on all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    protocol: String,
    port: i32,
    /// Empty for all addresses.
    address: String,
}

impl HostPort {
    fn of(port: &ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|port| *port > 0)?;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let protocol = Some(text(&port.protocol)).filter(|protocol| !protocol.is_empty());
        let address = Some(text(&port.host_ip)).filter(|address| !matches!(address.as_str(), "0.0.0.0" | "::"));
        Some(Self {
            protocol: protocol.unwrap_or_else(|| "TCP".to_owned()),
            port: number,
            address: address.unwrap_or_default(),
        })
    }

    /// Whether both cannot be had on one node (Kubernetes: the filter NodePorts).
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let same_place = self.address.is_empty() || other.address.is_empty() || self.address == other.address;
        same_place && (&self.protocol, self.port) == (&other.protocol, other.port)
    }
}

impl Request {
    /// What `pod` takes: what it says as a whole, else the sum of its containers, or its largest init container if that is more; and its
    /// overhead.
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
        // What the pod as a whole says of a resource goes before what its containers say.
        amounts.extend(requests(spec.resources.as_ref()));
        for (name, amount) in spec.overhead.iter().flatten() {
            *amounts.entry(name.clone()).or_default() += thousandths(amount);
        }
        amounts.retain(|_, amount| *amount > 0);
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let running = spec.containers.iter().chain(sidecars);
        let host_ports =
            running.flat_map(|container| container.ports.iter().flatten()).filter_map(HostPort::of).collect();
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
