//! Which addresses a name has, as the cluster's DNS and a pod's own files would answer it. Pure.
//!
//! A pod's hosts come first, then the name with each of its search domains, and as it stands: first where it has at least
//! as many dots as `ndots` says, else last (resolv.conf(5); Kubernetes, "DNS for Services and Pods"). By example, to a pod
//! of `shop` the name `cart` is `cart.shop.svc.cluster.local`, and `db.example` is that after three names that nobody has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::table::{Service, ServiceName, Table};

/// The domain of the cluster's names, with the dot before it.
pub(crate) const CLUSTER_DOMAIN: &str = ".cluster.local";
/// How often a Service may stand for another name before that is taken for a circle.
const ALIASES: usize = 8;

/// What one pod adds to a name, and what it knows by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNames {
    /// Names with their addresses, in lower case; a name may stand there more than once.
    pub hosts: Vec<(String, IpAddr)>,
    /// The domains that are tried, in their order, without a dot at either end.
    pub search: Vec<String>,
    /// From how many dots on a name is tried as it stands first.
    pub ndots: usize,
}

/// One thing to do for an answer; the first that gives addresses is it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// These are the addresses.
    Found(Vec<IpAddr>),
    /// The name is not of this cluster: whoever answers for the world is to be asked.
    Ask(String),
}

/// What is to be done for `name`, in this order; nothing for a name that nobody has. What stands behind a [`Lookup::Found`]
/// is not needed and left out.
pub fn lookups(table: &Table, names: &PodNames, name: &str) -> Vec<Lookup> {
    if let Ok(address) = name.parse() {
        return vec![Lookup::Found(vec![address])];
    }
    let lower = name.to_ascii_lowercase();
    let bare = lower.trim_end_matches('.');
    let own: Vec<IpAddr> = names.hosts.iter().filter(|(host, _)| host == bare).map(|(_, address)| *address).collect();
    if !own.is_empty() {
        return vec![Lookup::Found(own)];
    }
    if bare == "localhost" {
        return vec![Lookup::Found(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])];
    }
    let mut found = Vec::new();
    for candidate in candidates(names, &lower) {
        match look_up(table, &candidate) {
            Some(Lookup::Found(addresses)) => {
                found.push(Lookup::Found(addresses));
                break;
            }
            Some(ask) => {
                found.push(ask);
                // A Service stands for it, which is an answer too.
                if candidate.ends_with(CLUSTER_DOMAIN) {
                    break;
                }
            }
            None => {}
        }
    }
    found
}

/// The names that `name` may mean, in their order.
fn candidates(names: &PodNames, name: &str) -> Vec<String> {
    let Some(bare) = name.strip_suffix('.') else {
        let as_it_stands = std::iter::once(name.to_owned());
        let searched = names.search.iter().map(|domain| format!("{name}.{domain}"));
        return if name.matches('.').count() >= names.ndots {
            as_it_stands.chain(searched).collect()
        } else {
            searched.chain(as_it_stands).collect()
        };
    };
    vec![bare.to_owned()]
}

/// One whole name; none if it is of the cluster and nobody has it.
fn look_up(table: &Table, name: &str) -> Option<Lookup> {
    let mut name = name.to_owned();
    for _ in 0..ALIASES {
        let Some(short) = name.strip_suffix(CLUSTER_DOMAIN) else {
            return (name != CLUSTER_DOMAIN[1..]).then_some(Lookup::Ask(name));
        };
        let labels: Vec<&str> = short.split('.').collect();
        let addresses = match labels.as_slice() {
            [service, namespace, "svc"] => {
                let service = table.service(&ServiceName::new(*namespace, *service))?;
                if let Some(other) = &service.external_name {
                    name = other.trim_end_matches('.').to_ascii_lowercase();
                    continue;
                }
                of_service(service)
            }
            [pod, service, namespace, "svc"] => {
                of_pod(table.service(&ServiceName::new(*namespace, *service))?, pod).into_iter().collect()
            }
            [dashed, _, "pod"] => undashed(dashed).filter(|address| table.is_pod(*address)).into_iter().collect(),
            _ => return None,
        };
        return (!addresses.is_empty()).then_some(Lookup::Found(addresses));
    }
    None
}

/// The cluster addresses, or, of a headless Service, its ready pods.
fn of_service(service: &Service) -> Vec<IpAddr> {
    if !service.addresses.is_empty() {
        return service.addresses.clone();
    }
    service.members.iter().filter(|member| member.ready).map(|member| member.address).collect()
}

/// The ready pod that bears this name within the Service; one without a name bears its address's.
pub(crate) fn of_pod(service: &Service, pod: &str) -> Option<IpAddr> {
    let bears = |member: &&crate::table::Member| match &member.hostname {
        Some(hostname) => hostname == pod,
        None => Some(member.address) == undashed(pod),
    };
    service.members.iter().filter(|member| member.ready).find(bears).map(|member| member.address)
}

/// `10-64-0-2` as an address.
fn undashed(text: &str) -> Option<IpAddr> {
    text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Member, NodeNetwork};
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn service(namespace: &str, name: &str) -> Service {
        Service {
            name: ServiceName::new(namespace, name),
            addresses: vec![],
            ports: vec![],
            members: vec![],
            external_name: None,
        }
    }

    fn table() -> Table {
        let cart = Service { addresses: vec![ip("10.96.0.7")], ..service("shop", "cart") };
        let member = |address: &str, hostname: Option<&str>, ready| Member {
            address: ip(address),
            hostname: hostname.map(str::to_owned),
            ready,
        };
        let members = vec![
            member("10.64.0.2", Some("db-0"), true),
            member("10.64.1.2", None, true),
            member("10.64.1.3", Some("db-2"), false),
        ];
        let database = Service { members, ..service("shop", "db") };
        let alias = |name: &str, other: &str| Service { external_name: Some(other.into()), ..service("shop", name) };
        let services = vec![
            cart,
            database,
            alias("mail", "Mail.Example."),
            alias("basket", "cart.shop.svc.cluster.local"),
            alias("circle", "circle.shop.svc.cluster.local"),
        ];
        let network = NodeNetwork { node: "w1".into(), first: ip("10.64.0.0"), last: ip("10.64.0.255") };
        Table::new(services, []).with_networks([network])
    }

    fn names(namespace: &str) -> PodNames {
        PodNames {
            hosts: vec![("printer".into(), ip("192.0.2.7")), ("printer".into(), ip("192.0.2.8"))],
            search: [&format!("{namespace}.svc.cluster.local"), "svc.cluster.local", "cluster.local"]
                .map(str::to_owned)
                .into(),
            ndots: 5,
        }
    }

    fn found(addresses: &[&str]) -> Vec<Lookup> {
        vec![Lookup::Found(addresses.iter().map(|address| ip(address)).collect())]
    }

    #[test]
    fn the_cluster_answers_for_its_own_names() {
        for (namespace, name, wanted) in [
            ("shop", "cart", found(&["10.96.0.7"])),
            ("shop", "CART.shop", found(&["10.96.0.7"])),
            ("other", "cart.shop", found(&["10.96.0.7"])),
            ("other", "cart.shop.svc", found(&["10.96.0.7"])),
            ("other", "cart.shop.svc.cluster.local.", found(&["10.96.0.7"])),
            ("shop", "basket", found(&["10.96.0.7"])),
            ("shop", "db", found(&["10.64.0.2", "10.64.1.2"])),
            ("shop", "db-0.db", found(&["10.64.0.2"])),
            ("other", "db-0.db.shop.svc.cluster.local", found(&["10.64.0.2"])),
            ("other", "10-64-1-2.db.shop.svc", found(&["10.64.1.2"])),
            ("shop", "10-64-0-9.shop.pod.cluster.local", found(&["10.64.0.9"])),
            ("shop", "printer", found(&["192.0.2.7", "192.0.2.8"])),
            ("shop", "localhost", found(&["127.0.0.1", "::1"])),
            ("shop", "192.0.2.1", found(&["192.0.2.1"])),
            ("shop", "db-2.db.shop.svc.cluster.local.", vec![]),
            ("shop", "nobody.shop.svc.cluster.local.", vec![]),
            ("shop", "circle.shop.svc.cluster.local.", vec![]),
        ] {
            assert_eq!(lookups(&table(), &names(namespace), name), wanted, "{name} in {namespace}");
        }
    }

    #[test]
    fn the_world_is_asked_in_the_order_of_the_search_domains() {
        let ask = |names: &[&str]| names.iter().map(|name| Lookup::Ask((*name).to_owned())).collect::<Vec<_>>();
        let mut names = names("other");
        names.search.push("corp.example".to_owned());
        let look_up = |name: &str| lookups(&table(), &names, name);
        assert_eq!(look_up("db.example"), ask(&["db.example.corp.example", "db.example"]));
        assert_eq!(look_up("db.example."), ask(&["db.example"]));
        assert_eq!(look_up("a.b.c.d.e.example"), ask(&["a.b.c.d.e.example", "a.b.c.d.e.example.corp.example"]));
        assert_eq!(look_up("mail.shop"), ask(&["mail.example"]));
    }

    proptest! {
        #[test]
        fn a_name_of_the_cluster_s_domain_is_never_asked_outside(labels in prop::collection::vec("[a-z0-9-]{1,6}", 1..6)) {
            let name = format!("{}.cluster.local.", labels.join("."));
            let asked = lookups(&table(), &names("other"), &name);
            prop_assert!(asked.iter().all(|lookup| matches!(lookup, Lookup::Found(_))), "{:?}", asked);
        }

        #[test]
        fn addresses_come_last_and_once(name in "[a-z.]{1,20}") {
            let asked = lookups(&table(), &names("shop"), &name);
            let before = asked.len().saturating_sub(1);
            prop_assert!(asked[..before].iter().all(|lookup| matches!(lookup, Lookup::Ask(_))));
        }
    }
}
