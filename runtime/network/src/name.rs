//! What a host name means to a pod, as the cluster's DNS would answer it.
//!
//! `name`, `name.namespace`, `name.namespace.svc` and `name.namespace.svc.cluster.local` mean a Service (Kubernetes,
//! "DNS for Services and Pods"), with a pod's name and a dot before it one of its pods; an address means itself; everything
//! else is outside. Pure. `resolve` is for those who ask for addresses.

use std::net::IpAddr;

use crate::resolve::{CLUSTER_DOMAIN, of_pod};
use crate::table::{ServiceName, Table};

/// Where a host name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A Service of the cluster.
    Service(ServiceName),
    /// The address of a pod, of this node or another.
    Pod(IpAddr),
    /// A name of the cluster's domain that nothing bears.
    Unknown,
    /// Not of this cluster.
    Outside,
}

/// Says what `host`, as written in a URL by a pod of `namespace`, leads to.
pub fn destination(table: &Table, namespace: &str, host: &str) -> Destination {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return of_address(table, address);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let in_domain = host.strip_suffix(CLUSTER_DOMAIN);
    let short = in_domain.unwrap_or(&host);
    let labels: Vec<&str> = short.split('.').collect();
    if let Some(pod) = pod(table, namespace, &labels) {
        return Destination::Pod(pod);
    }
    let (name, must_exist) = match labels.as_slice() {
        [name] if in_domain.is_none() => (ServiceName::new(namespace, *name), false),
        [name, ns] if in_domain.is_none() => (ServiceName::new(*ns, *name), false),
        [name, ns, "svc"] => (ServiceName::new(*ns, *name), true),
        _ if in_domain.is_some() || short.ends_with(".svc") => return Destination::Unknown,
        _ => return Destination::Outside,
    };
    if table.service(&name).is_some() {
        Destination::Service(name)
    } else if must_exist {
        Destination::Unknown
    } else {
        Destination::Outside
    }
}

/// The pod of a headless Service that these labels name.
fn pod(table: &Table, namespace: &str, labels: &[&str]) -> Option<IpAddr> {
    let (pod, service) = match labels {
        [pod, service] => (pod, ServiceName::new(namespace, *service)),
        [pod, service, ns] | [pod, service, ns, "svc"] if *ns != "svc" => (pod, ServiceName::new(*ns, *service)),
        _ => return None,
    };
    // A Service of that name goes first, as it does among the search domains.
    let is_service = matches!(labels, [name, ns] if table.service(&ServiceName::new(*ns, *name)).is_some());
    table.service(&service).filter(|_| !is_service).and_then(|service| of_pod(service, pod))
}

fn of_address(table: &Table, address: IpAddr) -> Destination {
    if let Some(name) = table.service_at(address) {
        return Destination::Service(name.clone());
    }
    if table.is_pod(address) { Destination::Pod(address) } else { Destination::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Endpoint, Protocol, Service, ServicePort};

    fn table() -> Table {
        let port = ServicePort {
            name: None,
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            endpoints: vec![Endpoint {
                address: "10.64.0.2:8080".parse().expect("address"),
                node: "w1".into(),
                ready: true,
            }],
        };
        Table::new(
            vec![Service {
                name: ServiceName::new("shop", "cart"),
                addresses: vec!["10.96.0.7".parse().expect("ip")],
                ports: vec![port],
                members: vec![],
                external_name: None,
            }],
            std::iter::empty(),
        )
    }

    #[test]
    fn a_service_answers_to_its_four_names_and_its_address() {
        let cart = Destination::Service(ServiceName::new("shop", "cart"));
        for host in [
            "cart",
            "cart.shop",
            "cart.shop.svc",
            "cart.shop.svc.cluster.local",
            "CART.shop.svc.cluster.local.",
            "10.96.0.7",
        ] {
            assert_eq!(destination(&table(), "shop", host), cart, "{host}");
        }
        assert_eq!(destination(&table(), "other", "cart.shop"), cart);
    }

    #[test]
    fn a_short_name_is_looked_up_in_the_own_namespace_only() {
        assert_eq!(destination(&table(), "other", "cart"), Destination::Outside);
    }

    #[test]
    fn names_of_the_cluster_domain_never_lead_outside() {
        for host in ["nobody.shop.svc.cluster.local", "nobody.shop.svc", "a.b.c.cluster.local", "cart.cluster.local"] {
            assert_eq!(destination(&table(), "shop", host), Destination::Unknown, "{host}");
        }
    }

    #[test]
    fn pods_are_found_by_address_and_the_world_is_outside() {
        assert_eq!(destination(&table(), "shop", "10.64.0.2"), Destination::Pod("10.64.0.2".parse().expect("ip")));
        assert_eq!(destination(&table(), "shop", "example.com"), Destination::Outside);
        assert_eq!(destination(&table(), "shop", "[::1]"), Destination::Outside);
    }
}
