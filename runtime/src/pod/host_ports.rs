//! The ports of the node that a pod wants to be reached at: `hostPort`, with `hostIP` and the protocol. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use shoal_network::Protocol;

use super::observed::Refusal;
use super::spec;

/// A port of the node that leads to a port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// What it speaks.
    pub protocol: Protocol,
    /// Which of the node's addresses; none means all.
    pub address: Option<IpAddr>,
    /// On the node.
    pub port: u16,
    /// In the pod.
    pub container_port: u16,
}

impl HostPort {
    /// One that a pod listens at which shares the node's addresses, on all of them.
    pub fn opened(protocol: Protocol, port: u16) -> HostPort {
        HostPort { protocol, address: None, port, container_port: port }
    }

    /// Whether both cannot be had on one node.
    pub fn collides(&self, other: &HostPort) -> bool {
        let same_place = self.address.is_none() || other.address.is_none() || self.address == other.address;
        same_place && (self.protocol, self.port) == (other.protocol, other.port)
    }

    /// Where the node listens for it. Several workers share a machine by its loopback addresses: to such a node, all of its
    /// addresses are its own one.
    pub fn listens_at(&self, node: IpAddr) -> SocketAddr {
        let all = || match node {
            own if own.is_loopback() => own,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(self.address.unwrap_or_else(all), self.port)
    }
}

/// The ports that the pod wants, in the order in which it names them; all that it names if it shares the node's addresses.
pub fn of_pod(pod: &Pod) -> Vec<HostPort> {
    let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_sidecar(container));
    let containers = spec::containers(pod).iter().chain(sidecars);
    let is_hosted = spec::has_host_network(pod);
    containers.flat_map(spec::ports).filter_map(|port| of_port(port, is_hosted)).collect()
}

fn of_port(port: &ContainerPort, is_hosted: bool) -> Option<HostPort> {
    let host_port = wanted(port).or(is_hosted.then_some(port.container_port))?;
    Some(HostPort {
        protocol: protocol(port)?,
        address: address(port).ok()?,
        port: u16::try_from(host_port).ok()?,
        container_port: u16::try_from(port.container_port).ok()?,
    })
}

fn wanted(port: &ContainerPort) -> Option<i32> {
    port.host_port.filter(|port| *port != 0)
}

fn protocol(port: &ContainerPort) -> Option<Protocol> {
    match port.protocol.as_deref() {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// The address; none for all of them.
fn address(port: &ContainerPort) -> Result<Option<IpAddr>, ()> {
    let Some(text) = port.host_ip.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    let address: IpAddr = text.parse().map_err(|_| ())?;
    Ok(Some(address).filter(|address| !address.is_unspecified()))
}

/// The field of a container that no port of a node can honour, and why.
pub fn refusal(container: &Container) -> Option<(String, &'static str)> {
    let ports = spec::ports(container).iter().enumerate().filter(|(_, port)| wanted(port).is_some());
    ports.into_iter().find_map(|(index, port)| {
        if protocol(port).is_none() {
            return Some((format!("ports[{index}].protocol"), "a Wasm module has TCP and UDP only"));
        }
        address(port).is_err().then(|| (format!("ports[{index}].hostIP"), "it must be an IP address of the node"))
    })
}

/// A pod that came to a node where another one has its port (Kubernetes: the kubelet's admission).
pub fn conflict() -> Refusal {
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    Refusal { reason: "NodePorts".to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(ports: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "ports": ports}]}})).expect("a pod")
    }

    fn only(port: &serde_json::Value) -> HostPort {
        of_pod(&pod(&json!([port])))[0]
    }

    #[test]
    fn a_pod_s_ports_are_those_with_a_host_port() {
        let pod = pod(&json!([
            {"containerPort": 80},
            {"containerPort": 80, "hostPort": 8080},
            {"containerPort": 53, "hostPort": 53, "hostIP": "192.0.2.1", "protocol": "UDP"},
        ]));
        let udp = Some("192.0.2.1".parse().expect("an address"));
        assert_eq!(
            of_pod(&pod),
            [
                HostPort { protocol: Protocol::Tcp, address: None, port: 8080, container_port: 80 },
                HostPort { protocol: Protocol::Udp, address: udp, port: 53, container_port: 53 },
            ]
        );
    }

    #[test]
    fn all_addresses_collide_with_each_and_protocols_with_none() {
        let of = |ip: &str, protocol: &str| {
            only(&json!({"containerPort": 1, "hostPort": 80, "hostIP": ip, "protocol": protocol}))
        };
        let all = of("0.0.0.0", "TCP");
        assert!(all.collides(&of("", "TCP")) && all.collides(&of("192.0.2.1", "TCP")));
        assert!(of("192.0.2.1", "TCP").collides(&of("192.0.2.1", "TCP")));
        assert!(!of("192.0.2.1", "TCP").collides(&of("192.0.2.2", "TCP")));
        assert!(!all.collides(&of("", "UDP")));
    }

    #[test]
    fn all_addresses_are_those_of_the_node() {
        let at = |ip: &str, node: &str| {
            let port = only(&json!({"containerPort": 1, "hostPort": 80, "hostIP": ip}));
            port.listens_at(node.parse().expect("an address")).to_string()
        };
        assert_eq!(at("", "127.0.1.2"), "127.0.1.2:80");
        assert_eq!(at("", "192.0.2.1"), "0.0.0.0:80");
        assert_eq!(at("127.0.0.1", "192.0.2.1"), "127.0.0.1:80");
    }
}
