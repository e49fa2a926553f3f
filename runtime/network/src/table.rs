//! Services, their endpoints and the nodes behind them, as one immutable table.
//!
//! Pure: the agent builds a new table when an object changed and swaps it in; a request that is under way keeps the one it
//! saw. Which endpoint a request takes is decided by [`Table::candidates`] from a turn number that the caller gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// A Service's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl ServiceName {
    /// Puts a name together.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> ServiceName {
        ServiceName { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// One place where a Service's requests may go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The pod's address and its port.
    pub address: SocketAddr,
    /// The node that the pod runs on; empty if the slice does not say.
    pub node: String,
    /// Whether it takes new requests. One that is not ready is kept for the pod's address only.
    pub ready: bool,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, if it bears one.
    pub name: Option<String>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port of the cluster address.
    pub port: u16,
    /// The port on every node, for NodePort and LoadBalancer.
    pub node_port: Option<u16>,
    /// Where its requests go, in any order.
    pub endpoints: Vec<Endpoint>,
}

/// A pod behind a Service, for those who ask for names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The pod's address.
    pub address: IpAddr,
    /// The name that the pod has within the Service, if it has one.
    pub hostname: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
}

/// A Service as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Whose.
    pub name: ServiceName,
    /// Its cluster addresses; empty for a headless one.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Its pods, whatever its ports.
    pub members: Vec<Member>,
    /// The name outside the cluster that it stands for.
    pub external_name: Option<String>,
}

/// The addresses that one node gives to its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    /// The node.
    pub node: String,
    /// The first address.
    pub first: IpAddr,
    /// The last one.
    pub last: IpAddr,
}

/// Everything that the network knows of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Table {
    services: BTreeMap<ServiceName, Service>,
    by_address: BTreeMap<IpAddr, ServiceName>,
    by_node_port: BTreeMap<(Protocol, u16), (ServiceName, usize)>,
    pods: BTreeMap<IpAddr, String>,
    /// With the namespace of a Service that has it.
    endpoints: BTreeSet<(SocketAddr, String)>,
    /// The nodes' own addresses.
    hosts: BTreeSet<IpAddr>,
    /// The namespaces whose Services have this address among their pods.
    pod_namespaces: BTreeSet<(IpAddr, String)>,
    node_links: BTreeMap<String, String>,
    /// By the last address of each.
    networks: BTreeMap<IpAddr, NodeNetwork>,
}

impl Table {
    /// Builds the table. `node_links` gives a node's name and the address of its QUIC endpoint.
    ///
    /// If two Services claim one address or node port, the first by name has it.
    pub fn new(mut services: Vec<Service>, node_links: impl IntoIterator<Item = (String, String)>) -> Table {
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let mut table = Table { node_links: node_links.into_iter().collect(), ..Table::default() };
        for mut service in services {
            for (index, port) in service.ports.iter_mut().enumerate() {
                port.endpoints.sort();
                port.endpoints.dedup();
                for endpoint in &port.endpoints {
                    table.pods.insert(endpoint.address.ip(), endpoint.node.clone());
                    table.endpoints.insert((endpoint.address, service.name.namespace.clone()));
                    table.pod_namespaces.insert((endpoint.address.ip(), service.name.namespace.clone()));
                }
                if let Some(node_port) = port.node_port {
                    let key = (port.protocol, node_port);
                    table.by_node_port.entry(key).or_insert_with(|| (service.name.clone(), index));
                }
            }
            service.members.sort();
            service.members.dedup();
            for member in &service.members {
                table.pod_namespaces.insert((member.address, service.name.namespace.clone()));
            }
            for address in &service.addresses {
                table.by_address.entry(*address).or_insert_with(|| service.name.clone());
            }
            table.services.insert(service.name.clone(), service);
        }
        table
    }

    /// Adds which addresses are of which node's pods, so that a pod is found that no Service has.
    #[must_use]
    pub fn with_networks(mut self, networks: impl IntoIterator<Item = NodeNetwork>) -> Table {
        self.networks.extend(networks.into_iter().map(|network| (network.last, network)));
        self
    }

    /// Adds the nodes' own addresses: pods may share them, but only some of their ports.
    #[must_use]
    pub fn with_hosts(mut self, hosts: impl IntoIterator<Item = IpAddr>) -> Table {
        self.hosts.extend(hosts);
        self
    }

    /// The Service of that name.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The Service that has this cluster address.
    pub fn service_at(&self, address: IpAddr) -> Option<&ServiceName> {
        self.by_address.get(&address)
    }

    /// The Service port behind a node port.
    pub fn service_of_node_port(&self, protocol: Protocol, node_port: u16) -> Option<(&ServiceName, &ServicePort)> {
        let (name, index) = self.by_node_port.get(&(protocol, node_port))?;
        Some((name, self.services.get(name)?.ports.get(*index)?))
    }

    /// A Service's port by its number; a Service without a cluster address is also found by its endpoints' port.
    pub fn service_port(&self, name: &ServiceName, protocol: Protocol, port: u16) -> Option<&ServicePort> {
        let service = self.services.get(name)?;
        let mut ports = service.ports.iter().filter(|p| p.protocol == protocol);
        ports.clone().find(|p| p.port == port).or_else(|| {
            let is_headless = service.addresses.is_empty();
            ports.find(|p| is_headless && p.endpoints.iter().any(|e| e.address.port() == port))
        })
    }

    /// Every node port that some Service has.
    pub fn node_ports(&self) -> BTreeSet<(Protocol, u16)> {
        self.by_node_port.keys().copied().collect()
    }

    /// Whether an endpoint, or a pod of some node, has this address for itself.
    pub fn is_pod(&self, address: IpAddr) -> bool {
        (self.pods.contains_key(&address) && !self.hosts.contains(&address)) || self.network_of(address).is_some()
    }

    /// Whether this is a node's own address at a port where a Service has a pod that shares it.
    pub fn is_hosted(&self, address: SocketAddr) -> bool {
        self.hosts.contains(&address.ip()) && self.is_endpoint(address)
    }

    /// Whether some Service has this pod's port for an endpoint.
    pub(crate) fn is_endpoint(&self, address: SocketAddr) -> bool {
        let from = (address, String::new());
        self.endpoints.range(from..).next().is_some_and(|(endpoint, _)| *endpoint == address)
    }

    /// Whether a Service of this namespace has it.
    pub fn is_endpoint_of(&self, namespace: &str, address: SocketAddr) -> bool {
        self.endpoints.contains(&(address, namespace.to_owned()))
    }

    /// Whether a Service of this namespace has the address among its pods.
    pub fn is_pod_of(&self, namespace: &str, address: IpAddr) -> bool {
        self.pod_namespaces.contains(&(address, namespace.to_owned()))
    }

    /// The node of the pod with this address: as an endpoint told, else the one whose range it is in.
    pub fn node_of(&self, address: IpAddr) -> Option<&str> {
        let told = self.pods.get(&address).map(String::as_str).filter(|node| !node.is_empty());
        told.or_else(|| self.network_of(address).map(|network| network.node.as_str()))
    }

    fn network_of(&self, address: IpAddr) -> Option<&NodeNetwork> {
        let (_, network) = self.networks.range(address..).next()?;
        Some(network).filter(|network| network.first <= address)
    }

    /// The address of a node's QUIC endpoint.
    pub fn link_of(&self, node: &str) -> Option<&str> {
        self.node_links.get(node).map(String::as_str)
    }

    /// The ready endpoints of a port in the order in which a request should try them.
    ///
    /// `turn` rotates the order, so that a counter gives round robin. `worse` marks endpoints that are tried only after all
    /// the others: pods that stop, nodes that just failed.
    pub fn candidates(port: &ServicePort, turn: usize, worse: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
        let ready: Vec<&Endpoint> = port.endpoints.iter().filter(|e| e.ready).collect();
        if ready.is_empty() {
            return Vec::new();
        }
        let (first, second) = ready.split_at(turn % ready.len());
        let (last, mut order): (Vec<Endpoint>, Vec<Endpoint>) =
            second.iter().chain(first).map(|e| (*e).clone()).partition(|e| worse(e));
        order.extend(last);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(n: u8, ready: bool) -> Endpoint {
        Endpoint { address: SocketAddr::from(([10, 64, 0, n], 80)), node: format!("w{}", n % 3), ready }
    }

    fn port(endpoints: Vec<Endpoint>) -> ServicePort {
        ServicePort { name: None, protocol: Protocol::Tcp, port: 80, node_port: Some(30_080), endpoints }
    }

    proptest! {
        #[test]
        fn candidates_are_exactly_the_ready_endpoints(flags in prop::collection::vec((any::<bool>(), any::<bool>()), 0..12), turn: usize) {
            let endpoints: Vec<Endpoint> = flags.iter().enumerate().map(|(n, (ready, _))| endpoint(n as u8, *ready)).collect();
            let is_worse = |e: &Endpoint| match e.address.ip() { IpAddr::V4(v) => flags[v.octets()[3] as usize].1, IpAddr::V6(_) => false };
            let order = Table::candidates(&port(endpoints.clone()), turn, is_worse);
            let mut sorted = order.clone();
            sorted.sort();
            prop_assert_eq!(sorted, endpoints.into_iter().filter(|e| e.ready).collect::<Vec<_>>());
            let first_worse = order.iter().position(is_worse).unwrap_or(order.len());
            prop_assert!(order[first_worse..].iter().all(is_worse));
        }

        #[test]
        fn every_endpoint_gets_its_turn(count in 1u8..10) {
            let port = port((0..count).map(|n| endpoint(n, true)).collect());
            let firsts: BTreeSet<Endpoint> = (0..usize::from(count)).map(|turn| Table::candidates(&port, turn, |_| false)[0].clone()).collect();
            prop_assert_eq!(firsts.len(), usize::from(count));
        }
    }

    #[test]
    fn input_order_does_not_matter() {
        let service = |name: &str, endpoints| Service {
            name: ServiceName::new("default", name),
            addresses: vec!["10.96.0.9".parse().expect("ip")],
            ports: vec![port(endpoints)],
            members: vec![],
            external_name: None,
        };
        let (a, b) = (service("a", vec![endpoint(1, true), endpoint(2, true)]), service("b", vec![]));
        let a2 = service("a", vec![endpoint(2, true), endpoint(1, true)]);
        let one = Table::new(vec![a, b.clone()], []);
        let two = Table::new(vec![b, a2], []);
        assert_eq!(one.services, two.services);
        assert_eq!(one.service_of_node_port(Protocol::Tcp, 30_080), two.service_of_node_port(Protocol::Tcp, 30_080));
        assert_eq!(one.service_at("10.96.0.9".parse().expect("ip")), Some(&ServiceName::new("default", "a")));
    }

    #[test]
    fn a_headless_service_is_found_by_its_pods_port() {
        let mut one = port(vec![Endpoint {
            address: "10.64.0.1:8080".parse().expect("address"),
            node: "w1".into(),
            ready: true,
        }]);
        one.node_port = None;
        let name = ServiceName::new("default", "db");
        let service =
            Service { name: name.clone(), addresses: vec![], ports: vec![one], members: vec![], external_name: None };
        let table = Table::new(vec![service], []);
        assert!(table.service_port(&name, Protocol::Tcp, 8080).is_some());
        assert!(table.service_port(&name, Protocol::Tcp, 80).is_some());
        assert!(table.service_port(&name, Protocol::Tcp, 81).is_none());
        assert!(table.service_port(&name, Protocol::Udp, 80).is_none());
        let address = "10.64.0.1".parse().expect("ip");
        assert!(table.is_pod_of("default", address) && !table.is_pod_of("other", address));
    }

    #[test]
    fn a_node_s_address_is_a_pod_s_where_a_service_says_so_and_nowhere_else() {
        let at = |text: &str| -> SocketAddr { text.parse().expect("address") };
        let hosted = Endpoint { address: at("192.0.2.1:8080"), node: "w1".into(), ready: true };
        let service = Service {
            name: ServiceName::new("shop", "web"),
            addresses: vec!["10.96.0.9".parse().expect("ip")],
            ports: vec![port(vec![hosted])],
            members: vec![],
            external_name: None,
        };
        let table = Table::new(vec![service], []).with_hosts([at("192.0.2.1:0").ip(), at("192.0.2.2:0").ip()]);
        assert!(!table.is_pod(at("192.0.2.1:0").ip()));
        assert_eq!(table.node_of(at("192.0.2.1:0").ip()), Some("w1"));
        assert!(table.is_hosted(at("192.0.2.1:8080")) && !table.is_hosted(at("192.0.2.1:22")));
        assert!(!table.is_hosted(at("192.0.2.2:8080")));
        assert!(table.is_endpoint_of("shop", at("192.0.2.1:8080")));
        assert!(
            !table.is_endpoint_of("other", at("192.0.2.1:8080")) && !table.is_endpoint_of("sho", at("192.0.2.1:8080"))
        );
    }

    #[test]
    fn a_pod_of_no_service_is_found_by_its_node_s_range() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("ip");
        let network = |node: &str, first, last| NodeNetwork { node: node.into(), first: ip(first), last: ip(last) };
        let table = Table::new(vec![], [])
            .with_networks([network("w1", "10.64.0.0", "10.64.0.255"), network("w2", "10.64.2.0", "10.64.2.255")]);
        assert_eq!(table.node_of(ip("10.64.0.7")), Some("w1"));
        assert_eq!(table.node_of(ip("10.64.2.255")), Some("w2"));
        assert!(table.is_pod(ip("10.64.2.0")));
        for outside in ["10.63.255.255", "10.64.1.7", "10.64.3.0", "::1"] {
            assert_eq!(table.node_of(ip(outside)), None, "{outside}");
        }
    }
}
