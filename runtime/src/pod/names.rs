//! What a pod adds to a name that it looks up, as its dnsPolicy, dnsConfig and hostAliases say. Pure. Whom it asks for names that
//! are not of the cluster is in `world_names`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use shoal_network::PodNames;

use super::spec;

/// From how many dots on a name is tried as it stands first, where the cluster's domains are searched.
const CLUSTER_NDOTS: usize = 5;

/// The names of a pod with this address. One that shares its node's network asks as its node does, unless it wants the cluster's
/// names by `ClusterFirstWithHostNet`.
pub fn pod_names(pod: &Pod, address: Option<IpAddr>) -> PodNames {
    let Some(pod_spec) = pod.spec.as_ref() else { return PodNames::default() };
    let namespace = spec::namespace(pod);
    let is_cluster_first = match pod_spec.dns_policy.as_deref() {
        Some("Default" | "None") => false,
        Some("ClusterFirstWithHostNet") => true,
        _ => !spec::has_host_network(pod),
    };
    let mut search = Vec::new();
    if is_cluster_first {
        search =
            vec![format!("{namespace}.svc.cluster.local"), "svc.cluster.local".to_owned(), "cluster.local".to_owned()];
    }
    let config = pod_spec.dns_config.as_ref();
    for domain in config.and_then(|config| config.searches.as_deref()).unwrap_or_default() {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        if !domain.is_empty() && !search.contains(&domain) {
            search.push(domain);
        }
    }
    let options = config.and_then(|config| config.options.as_deref()).unwrap_or_default();
    let ndots = options.iter().find(|option| option.name.as_deref() == Some("ndots"));
    let ndots = ndots.and_then(|option| option.value.as_deref()?.parse().ok());
    let ndots = ndots.unwrap_or(if is_cluster_first { CLUSTER_NDOTS } else { 1 });
    PodNames { hosts: hosts(pod, address), search, ndots }
}

/// What stands in the pod's /etc/hosts: its own names, then its hostAliases.
fn hosts(pod: &Pod, address: Option<IpAddr>) -> Vec<(String, IpAddr)> {
    let mut hosts = Vec::new();
    let pod_spec = pod.spec.as_ref();
    if let Some(address) = address {
        let hostname = spec::hostname(pod).to_ascii_lowercase();
        if let Some(domain) = spec::domain(pod) {
            hosts.push((format!("{hostname}.{domain}"), address));
        }
        hosts.push((hostname, address));
    }
    for alias in pod_spec.and_then(|s| s.host_aliases.as_deref()).unwrap_or_default() {
        let Ok(address) = alias.ip.parse::<IpAddr>() else { continue };
        let names = alias.hostnames.iter().flatten();
        hosts.extend(names.map(|name| (name.trim_end_matches('.').to_ascii_lowercase(), address)));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}))
            .expect("a pod")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_cluster_s_domains_come_before_the_pod_s() {
        let names = pod_names(
            &pod(&json!({"containers": [], "dnsConfig": {"searches": ["Corp.Example.", "svc.cluster.local"]}})),
            None,
        );
        assert_eq!(names.search, ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        assert_eq!(names.ndots, 5);
    }

    #[test]
    fn other_policies_search_what_the_pod_says() {
        for policy in ["Default", "None"] {
            let config = json!({"searches": ["corp.example"], "options": [{"name": "ndots", "value": "2"}]});
            let names = pod_names(&pod(&json!({"containers": [], "dnsPolicy": policy, "dnsConfig": config})), None);
            assert_eq!((names.search, names.ndots), (vec!["corp.example".to_owned()], 2), "{policy}");
        }
        assert_eq!(pod_names(&pod(&json!({"containers": [], "dnsPolicy": "Default"})), None).ndots, 1);
        for (policy, is_searched) in [("ClusterFirst", false), ("ClusterFirstWithHostNet", true)] {
            let names = pod_names(&pod(&json!({"containers": [], "hostNetwork": true, "dnsPolicy": policy})), None);
            assert_eq!(!names.search.is_empty(), is_searched, "{policy}");
        }
    }

    #[test]
    fn a_pod_knows_itself_and_its_aliases() {
        let aliases =
            json!([{"ip": "192.0.2.7", "hostnames": ["Printer", "printer.corp"]}, {"ip": "junk", "hostnames": ["x"]}]);
        let spec = json!({"containers": [], "hostname": "db-0", "subdomain": "db", "hostAliases": aliases});
        let names = pod_names(&pod(&spec), Some(ip("10.64.0.2")));
        assert_eq!(
            names.hosts,
            [
                ("db-0.db.shop.svc.cluster.local".to_owned(), ip("10.64.0.2")),
                ("db-0".to_owned(), ip("10.64.0.2")),
                ("printer".to_owned(), ip("192.0.2.7")),
                ("printer.corp".to_owned(), ip("192.0.2.7")),
            ]
        );
        let plain = pod_names(&pod(&json!({"containers": []})), Some(ip("10.64.0.2")));
        assert_eq!(plain.hosts, [("web-0".to_owned(), ip("10.64.0.2"))]);
    }
}
