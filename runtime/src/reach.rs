//! Where a pod's socket may lead, decided from the address that it asks for. Pure.
//!
//! Always: the pod itself, the Services of its namespace, and their pods. Everything else only where the pod's annotation
//! names it, see `outbound_policy`; an address stands for each name that the pod found it by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use shoal_network::{ServiceName, Table};

use crate::outbound_policy::AllowedHosts;

/// How many addresses a pod's names are remembered for; with the next one all are forgotten.
const LEARNED: usize = 4_096;

/// Where a socket leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// To a Service.
    Service(ServiceName),
    /// To a pod, of this node or another.
    Pod,
    /// Out of the cluster.
    Outside,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The pod's address.
    pub address: IpAddr,
    /// Its namespace.
    pub namespace: &'a str,
    /// What its annotation grants.
    pub allowed: &'a AllowedHosts,
    /// The names that it looked up.
    pub learned: &'a Learned,
}

/// The names by which a pod found addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned(BTreeMap<IpAddr, BTreeSet<String>>);

impl Learned {
    /// The pod has found these addresses by this name.
    pub fn learn(&mut self, name: &str, addresses: &[IpAddr]) {
        if self.0.len() + addresses.len() > LEARNED {
            self.0.clear();
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        for address in addresses {
            self.0.entry(*address).or_default().insert(name.clone());
        }
    }

    fn names(&self, address: IpAddr) -> impl Iterator<Item = &String> {
        self.0.get(&address).into_iter().flatten()
    }
}

/// Where a socket to `to` leads; `scheme` is `tcp` or `udp`. None is denied.
pub fn reach(table: &Table, asker: &Asker<'_>, scheme: &str, to: SocketAddr) -> Option<Reach> {
    let (ip, port) = (to.ip(), to.port());
    if ip == asker.address {
        return Some(Reach::Pod);
    }
    let permitted = |host: &str| asker.allowed.permit(scheme, host, port);
    let is_named = || permitted(&ip.to_string()) || asker.learned.names(ip).any(|name| permitted(name));
    if let Some(name) = table.service_at(ip) {
        let is_permitted =
            name.namespace == asker.namespace || is_named() || names_of(name).iter().any(|n| permitted(n));
        return is_permitted.then(|| Reach::Service(name.clone()));
    }
    if table.is_pod(ip) {
        return (table.is_pod_of(asker.namespace, ip) || is_named()).then_some(Reach::Pod);
    }
    if table.is_hosted(to) {
        return (table.is_endpoint_of(asker.namespace, to) || is_named()).then_some(Reach::Pod);
    }
    is_named().then_some(Reach::Outside)
}

/// The names by which others may call a Service.
fn names_of(service: &ServiceName) -> [String; 3] {
    let short = service.to_string();
    [format!("{short}.svc"), format!("{short}.svc.cluster.local"), short]
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_network::{Endpoint, Member, NodeNetwork, Protocol, Service, ServicePort};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn table() -> Table {
        let service = |namespace: &str, address: &str, pod: &str| Service {
            name: ServiceName::new(namespace, "db"),
            addresses: vec![ip(address)],
            ports: vec![],
            members: vec![Member { address: ip(pod), hostname: None, ready: true }],
            external_name: None,
        };
        let network = NodeNetwork { node: "w1".into(), first: ip("10.64.0.0"), last: ip("10.64.0.255") };
        let services = vec![service("shop", "10.96.0.1", "10.64.0.2"), service("bank", "10.96.0.2", "10.64.0.3")];
        Table::new(services, []).with_networks([network])
    }

    fn from_shop(grants: &str, found: &[(&str, &str)], to: &str) -> Option<Reach> {
        let mut learned = Learned::default();
        for (name, address) in found {
            learned.learn(name, &[ip(address)]);
        }
        let allowed = AllowedHosts::parse(grants);
        let asker = Asker { address: ip("10.64.0.9"), namespace: "shop", allowed: &allowed, learned: &learned };
        reach(&table(), &asker, "tcp", to.parse().expect("an address"))
    }

    #[test]
    fn the_own_namespace_is_always_reached_and_nothing_else() {
        let service = |namespace: &str| Some(Reach::Service(ServiceName::new(namespace, "db")));
        for (to, wanted) in [
            ("10.64.0.9:80", Some(Reach::Pod)),
            ("10.96.0.1:80", service("shop")),
            ("10.64.0.2:80", Some(Reach::Pod)),
            ("10.96.0.2:80", None),
            ("10.64.0.3:80", None),
            ("10.64.0.4:80", None),
            ("192.0.2.1:80", None),
            ("[2001:db8::1]:80", None),
        ] {
            assert_eq!(from_shop("", &[], to), wanted, "{to}");
        }
        for grants in ["db.bank", "db.bank.svc:80", "tcp://db.bank.svc.cluster.local", "10.96.0.2", "*"] {
            assert_eq!(from_shop(grants, &[], "10.96.0.2:80"), service("bank"), "{grants}");
        }
        assert_eq!(from_shop("db.bank:81 http://db.bank", &[], "10.96.0.2:80"), None);
    }

    #[test]
    fn a_pod_that_shares_its_node_s_address_is_reached_at_its_port_and_the_node_is_not() {
        let endpoint =
            Endpoint { address: "192.0.2.9:80".parse().expect("an address"), node: "w1".into(), ready: true };
        let port =
            ServicePort { name: None, protocol: Protocol::Tcp, port: 80, node_port: None, endpoints: vec![endpoint] };
        let service = Service {
            name: ServiceName::new("shop", "web"),
            addresses: vec![],
            ports: vec![port],
            members: vec![],
            external_name: None,
        };
        let table = Table::new(vec![service], []).with_hosts([ip("192.0.2.9")]);
        let from = |namespace: &str, grants: &str, to: &str| {
            let (allowed, learned) = (AllowedHosts::parse(grants), Learned::default());
            let asker = Asker { address: ip("10.64.0.9"), namespace, allowed: &allowed, learned: &learned };
            reach(&table, &asker, "tcp", to.parse().expect("an address"))
        };
        assert_eq!(from("shop", "", "192.0.2.9:80"), Some(Reach::Pod));
        assert_eq!(from("shop", "", "192.0.2.9:22"), None);
        assert_eq!(from("bank", "", "192.0.2.9:80"), None);
        assert_eq!(from("bank", "192.0.2.9", "192.0.2.9:80"), Some(Reach::Pod));
        assert_eq!(from("bank", "192.0.2.9", "192.0.2.9:22"), Some(Reach::Outside));
    }

    #[test]
    fn an_address_stands_for_the_names_it_was_found_by() {
        let found = [("api.Example.", "192.0.2.1"), ("evil.example", "192.0.2.2")];
        assert_eq!(from_shop("api.example:443", &found, "192.0.2.1:443"), Some(Reach::Outside));
        assert_eq!(from_shop("api.example:443", &found, "192.0.2.1:444"), None);
        assert_eq!(from_shop("api.example:443", &found, "192.0.2.2:443"), None);
        assert_eq!(from_shop("192.0.2.2", &[], "192.0.2.2:443"), Some(Reach::Outside));
        assert_eq!(from_shop("https://api.example", &found, "192.0.2.1:443"), None);
    }
}
