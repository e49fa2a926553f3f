//! What is wrong with the names that a pod has, and with whom it asks for others.

use std::net::IpAddr;

use serde_json::Value;

use crate::table::cells::{list, text};
use crate::validation::{FieldError, invalid, names, one_of};

/// The longest name of a host (Linux).
const LONGEST_HOSTNAME: usize = 64;
/// How many servers of names a pod may name, as in Kubernetes.
const MOST_NAMESERVERS: usize = 3;
/// How many domains it may have searched, and how many characters those may have together, as in Kubernetes.
const MOST_SEARCHES: usize = 32;
const LONGEST_SEARCHES: usize = 2048;

/// Appends what is wrong in the pod spec at `path`.
pub(super) fn check(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    for (field, wrong) in [
        ("nodeName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("serviceAccountName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ] {
        if let Some(name) = spec.get(field).and_then(Value::as_str).filter(|name| !name.is_empty()) {
            invalid(problems, &format!("{path}.{field}"), name, wrong(name));
        }
    }
    check_override(spec, path, problems);
    check_asked(spec, path, problems);
    for (index, alias) in list(spec, "/hostAliases").iter().enumerate() {
        check_address(text(alias, "/ip"), &format!("{path}.hostAliases[{index}].ip"), problems);
        for (at, name) in list(alias, "/hostnames").iter().filter_map(Value::as_str).enumerate() {
            let field = format!("{path}.hostAliases[{index}].hostnames[{at}]");
            invalid(problems, &field, name, names::dns_subdomain(name));
        }
    }
}

/// A name of the pod's host that goes before all others, and so is beside none of them.
fn check_override(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let name = text(spec, "/hostnameOverride");
    if name.is_empty() {
        return;
    }
    let field = format!("{path}.hostnameOverride");
    invalid(problems, &field, name, names::dns_subdomain(name));
    if name.len() > LONGEST_HOSTNAME {
        problems.push(FieldError::too_long(field.as_str(), LONGEST_HOSTNAME));
    }
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.get(other) == Some(&Value::Bool(true)) {
            problems.push(FieldError::forbidden(field.as_str(), format!("may not be specified when {other} is true")));
        }
    }
}

/// Whom it asks (Kubernetes: `validatePodDNSConfig`).
fn check_asked(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    let policy = text(spec, "/dnsPolicy");
    one_of(problems, &format!("{path}.dnsPolicy"), policy, &policies);
    let servers = list(spec, "/dnsConfig/nameservers");
    let field = format!("{path}.dnsConfig.nameservers");
    if policy == "None" && spec.get("dnsConfig").is_none_or(Value::is_null) {
        let message = format!("must provide `dnsConfig` when `dnsPolicy` is {policy}");
        problems.push(FieldError::required(format!("{path}.dnsConfig"), message));
    } else if policy == "None" && servers.is_empty() {
        let message = format!("must provide at least one DNS nameserver when `dnsPolicy` is {policy}");
        problems.push(FieldError::required(field.as_str(), message));
    }
    if servers.len() > MOST_NAMESERVERS {
        let message = format!("must not have more than {MOST_NAMESERVERS} nameservers");
        problems.push(FieldError::invalid(field.as_str(), servers.to_vec(), message));
    }
    for (index, server) in servers.iter().enumerate() {
        check_address(server.as_str().unwrap_or_default(), &format!("{field}[{index}]"), problems);
    }
    check_searches(spec, &format!("{path}.dnsConfig.searches"), problems);
    for (index, option) in list(spec, "/dnsConfig/options").iter().enumerate() {
        if text(option, "/name").is_empty() {
            let field = format!("{path}.dnsConfig.options[{index}]");
            problems.push(FieldError::required(field, "must not be empty"));
        }
    }
}

fn check_searches(spec: &Value, field: &str, problems: &mut Vec<FieldError>) {
    let domains: Vec<&str> = list(spec, "/dnsConfig/searches").iter().filter_map(Value::as_str).collect();
    if domains.len() > MOST_SEARCHES {
        let message = format!("must not have more than {MOST_SEARCHES} search paths");
        problems.push(FieldError::invalid(field, domains.len(), message));
    }
    if domains.join(" ").len() > LONGEST_SEARCHES {
        let message =
            format!("must not have more than {LONGEST_SEARCHES} characters (including spaces) in the search list");
        problems.push(FieldError::invalid(field, domains.len(), message));
    }
    for (index, domain) in domains.iter().enumerate() {
        let bare = domain.strip_suffix('.').unwrap_or(domain);
        // The root alone is a domain too.
        if *domain != "." {
            invalid(problems, &format!("{field}[{index}]"), *domain, names::dns_subdomain(bare));
        }
    }
}

fn check_address(address: &str, field: &str, problems: &mut Vec<FieldError>) {
    if address.parse::<IpAddr>().is_err() {
        problems.push(FieldError::invalid(
            field,
            address,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
}
