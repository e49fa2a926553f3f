//! Where an object lies in the store: `/registry/<group or core>/<plural>[/<namespace>]/<name>`.
//!
//! `storage` is the resource table's `core/pods`: events of both groups share `core/events`.

/// The key of an object. A namespaced one must have a namespace.
pub(crate) fn object(storage: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("/registry/{storage}/{namespace}/{name}"),
        None => format!("/registry/{storage}/{name}"),
    }
}

/// The prefix that the keys of a collection share, with its closing slash.
pub(crate) fn collection(storage: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/registry/{storage}/{namespace}/"),
        None => format!("/registry/{storage}/"),
    }
}

/// The key of a namespace object.
pub(crate) fn namespace(name: &str) -> String {
    object("core/namespaces", None, name)
}

/// Who holds a cluster address.
pub(crate) fn cluster_address(address: std::net::Ipv4Addr) -> String {
    format!("/shoal/allocations/clusterips/{address}")
}

/// Which node holds a block of the pods' network, `10.64.0.0/24`. The slash is no part of a key.
pub(crate) fn pod_network(network: &str) -> String {
    format!("/shoal/allocations/podcidrs/{}", network.replace('/', "-"))
}

/// Who holds a node port.
pub(crate) fn node_port(port: u16) -> String {
    format!("/shoal/allocations/nodeports/{port}")
}
