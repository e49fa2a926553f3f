//! EndpointSlice: some of the addresses behind a Service, and which of them are ready.

use serde_json::Value;

use super::config_map::never_changes;
use crate::resource::{Resource, Strategy};
use crate::table::cells::{AGE, NAME, column, first, list, text};
use crate::validation::{FieldError, invalid, names, one_of, port};

pub(super) const ROW: Resource = Resource {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    storage: "discovery.k8s.io/endpointslices",
    has_generation: true,
    columns: &[
        NAME,
        column("AddressType", "The kind of its addresses.", |object, _| text(object, "/addressType").into()),
        column("Ports", "The ports of each endpoint.", |object, _| ports(object).into()),
        column("Endpoints", "The endpoints.", |object, _| endpoints(object).into()),
        AGE,
    ],
    strategy: &EndpointSlice,
    ..Resource::BASE
};

/// The most endpoints and ports that one slice may hold.
const MOST: usize = 1000;
const MOST_PORTS: usize = 100;

fn ports(object: &Value) -> String {
    let numbers: Vec<String> = list(object, "/ports")
        .iter()
        .map(|port| {
            port.get("port").and_then(Value::as_i64).map_or_else(|| "*".to_owned(), |number| number.to_string())
        })
        .collect();
    if numbers.is_empty() { "<unset>".to_owned() } else { first(&numbers, 3) }
}

fn endpoints(object: &Value) -> String {
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if addresses.is_empty() { "<unset>".to_owned() } else { first(&addresses, 3) }
}

struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in
            object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            port.entry("name").or_insert_with(|| "".into());
            port.entry("protocol").or_insert_with(|| "TCP".into());
        }
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        one_of(problems, "addressType", text(object, "/addressType"), &["IPv4", "IPv6", "FQDN"]);
        let endpoints = list(object, "/endpoints");
        if endpoints.len() > MOST || list(object, "/ports").len() > MOST_PORTS {
            problems.push(FieldError::invalid("endpoints", endpoints.len(), format!("must have at most {MOST} items")));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let addresses = list(endpoint, "/addresses");
            if addresses.is_empty() {
                problems.push(FieldError::required(
                    format!("endpoints[{index}].addresses"),
                    "must contain at least 1 address",
                ));
            }
            for (at, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
                address_of(
                    problems,
                    &format!("endpoints[{index}].addresses[{at}]"),
                    text(object, "/addressType"),
                    address,
                );
            }
        }
        for (index, item) in list(object, "/ports").iter().enumerate() {
            port(problems, &format!("ports[{index}].port"), item.get("port"));
            one_of(problems, &format!("ports[{index}].protocol"), text(item, "/protocol"), &["TCP", "UDP", "SCTP"]);
        }
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        never_changes(new, old, "/addressType", "addressType", problems);
    }
}

fn address_of(problems: &mut Vec<FieldError>, field: &str, kind: &str, address: &str) {
    match kind {
        "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
            problems.push(FieldError::invalid(field, address, "must be an IPv4 address"))
        }
        "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
            problems.push(FieldError::invalid(field, address, "must be an IPv6 address"))
        }
        "FQDN" => invalid(problems, field, address, names::dns_subdomain(address)),
        _ => {}
    }
}
