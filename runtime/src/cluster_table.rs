//! Translating Services, EndpointSlices and Nodes into the network's table. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use shoal_network::{Endpoint, Member, NodeNetwork, Protocol, ServiceName, ServicePort, Table};

use crate::addresses::Range;

/// On a Node: where its QUIC endpoint for other workers listens.
pub const LINK_ADDRESS: &str = "shoal.dev/link-address";
/// On an EndpointSlice: the Service that it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Builds the table.
pub fn cluster_table<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    nodes: impl IntoIterator<Item = &'a Node> + Clone,
) -> Table {
    let mut slices_of: BTreeMap<ServiceName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        if let Some(name) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
            slices_of.entry(ServiceName::new(namespace, name)).or_default().push(slice);
        }
    }
    let services = services.into_iter().filter_map(|s| service(s, &slices_of)).collect();
    let networks = nodes.clone().into_iter().filter_map(node_network);
    let hosts = nodes.clone().into_iter().flat_map(node_addresses);
    Table::new(services, nodes.into_iter().filter_map(node_link)).with_networks(networks).with_hosts(hosts)
}

fn node_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(|address| address.type_ == "InternalIP").filter_map(|address| address.address.parse().ok())
}

fn node_network(node: &Node) -> Option<NodeNetwork> {
    let (first, last) = Range::of(node)?.ends();
    Some(NodeNetwork { node: node.metadata.name.clone()?, first, last })
}

fn node_link(node: &Node) -> Option<(String, String)> {
    let link = node.metadata.annotations.as_ref()?.get(LINK_ADDRESS)?;
    Some((node.metadata.name.clone()?, link.clone()))
}

fn service(service: &Service, slices: &BTreeMap<ServiceName, Vec<&EndpointSlice>>) -> Option<shoal_network::Service> {
    let spec = service.spec.as_ref()?;
    let name = ServiceName::new(service.metadata.namespace.clone()?, service.metadata.name.clone()?);
    let addresses = spec.cluster_ips.clone().or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip])).unwrap_or_default();
    let slices = slices.get(&name).map(Vec::as_slice).unwrap_or_default();
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let port_name = port.name.clone().filter(|n| !n.is_empty());
        let endpoints = slices.iter().flat_map(|slice| endpoints(slice, port_name.as_deref())).collect();
        Some(ServicePort {
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
            name: port_name,
            endpoints,
        })
    });
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    Some(shoal_network::Service {
        addresses: addresses.iter().filter_map(|a| a.parse().ok()).collect(),
        ports: ports.collect(),
        members: slices.iter().flat_map(|slice| members(slice)).collect(),
        external_name: spec.external_name.clone().filter(|name| is_external && !name.is_empty()),
        name,
    })
}

/// A protocol that pods speak; SCTP has no sockets in WASI.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// The slice's pods, whatever its ports.
fn members(slice: &EndpointSlice) -> impl Iterator<Item = Member> {
    slice.endpoints.iter().flat_map(|endpoint| {
        let ready = is_ready(endpoint);
        let addresses = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
        addresses.map(move |address| Member { address, hostname: endpoint.hostname.clone(), ready })
    })
}

/// Kubernetes: an unknown `ready` is to be taken for true.
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// The slice's endpoints for the Service port of that name. A slice's port bears the Service port's name.
fn endpoints(slice: &EndpointSlice, port_name: Option<&str>) -> Vec<Endpoint> {
    let is_it = |name: Option<&str>| name.filter(|n| !n.is_empty()) == port_name;
    let port =
        slice.ports.iter().flatten().find(|p| is_it(p.name.as_deref())).and_then(|p| u16::try_from(p.port?).ok());
    let Some(port) = port else { return Vec::new() };
    let of_endpoint = |endpoint: &SliceEndpoint| {
        let ready = is_ready(endpoint);
        let node = endpoint.node_name.clone().unwrap_or_default();
        let addresses = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
        addresses
            .map(|ip| Endpoint { address: SocketAddr::new(ip, port), node: node.clone(), ready })
            .collect::<Vec<_>>()
    };
    slice.endpoints.iter().flat_map(of_endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_its_slices_and_its_nodes_meet_in_the_table() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "cart"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
        }))
        .expect("service");
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "cart-1", "labels": {SERVICE_NAME: "cart"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
            "endpoints": [
                {"addresses": ["10.64.0.2"], "nodeName": "w1", "hostname": "cart-0", "conditions": {"ready": true}},
                {"addresses": ["127.0.1.1"], "nodeName": "w1", "conditions": {"ready": true}},
                {"addresses": ["10.64.1.2"], "nodeName": "w2", "conditions": {"ready": false, "serving": true, "terminating": true}}],
        }))
        .expect("slice");
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "w1", "annotations": {LINK_ADDRESS: "127.0.1.1:7000"}}, "spec": {"podCIDR": "10.64.0.0/24"},
                "status": {"addresses": [{"type": "InternalIP", "address": "127.0.1.1"}, {"type": "Hostname", "address": "w1"}]}}),
        )
        .expect("node");
        let table = cluster_table([&service], [&slice], [&node]);
        let (name, port) = table.service_of_node_port(Protocol::Tcp, 30_080).expect("node port");
        assert_eq!(name, &ServiceName::new("shop", "cart"));
        let endpoint = |address: &str, node: &str, ready| Endpoint {
            address: address.parse().expect("address"),
            node: node.into(),
            ready,
        };
        let hosted = endpoint("127.0.1.1:8080", "w1", true);
        assert!(table.is_hosted(hosted.address) && !table.is_pod(hosted.address.ip()));
        let own = [endpoint("10.64.0.2:8080", "w1", true), endpoint("10.64.1.2:8080", "w2", false)];
        assert_eq!(port.endpoints, [own[0].clone(), own[1].clone(), hosted]);
        assert_eq!(table.link_of("w1"), Some("127.0.1.1:7000"));
        assert!(table.service_port(name, Protocol::Tcp, 53).is_none());
        let datagrams = table.service_port(name, Protocol::Udp, 53).expect("a port for datagrams");
        assert_eq!(datagrams.endpoints[0], endpoint("10.64.0.2:5353", "w1", true));
        let members = &table.service(name).expect("the service").members;
        let told: Vec<_> = members.iter().map(|member| (member.hostname.as_deref(), member.ready)).collect();
        assert_eq!(told, [(Some("cart-0"), true), (None, false), (None, true)]);
        assert_eq!(table.node_of("10.64.0.200".parse().expect("ip")), Some("w1"));
    }
}
