//! Endpoints: the older list of the addresses behind a Service.

use serde_json::Value;

use crate::resource::{Resource, Strategy};
use crate::table::cells::{AGE, NAME, column, first, integer, list, text};
use crate::validation::{FieldError, port};

pub(super) const ROW: Resource = Resource {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    schema: "io.k8s.api.core.v1.Endpoints",
    storage: "core/endpoints",
    create_on_update: true,
    columns: &[NAME, column("Endpoints", "The addresses that are ready.", |object, _| addresses(object).into()), AGE],
    strategy: &Endpoints,
    ..Resource::BASE
};

fn addresses(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        for address in list(subset, "/addresses") {
            let address = text(address, "/ip");
            let ports = list(subset, "/ports");
            if ports.is_empty() {
                all.push(address.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{address}:{}", integer(port, "/port"))));
        }
    }
    first(&all, 3)
}

struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in object.get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten() {
            for port in subset
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .filter_map(Value::as_object_mut)
            {
                port.entry("protocol").or_insert_with(|| "TCP".into());
            }
        }
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        for (index, subset) in list(object, "/subsets").iter().enumerate() {
            let path = format!("subsets[{index}]");
            if list(subset, "/addresses").is_empty() && list(subset, "/notReadyAddresses").is_empty() {
                problems.push(FieldError::required(path.as_str(), "must specify `addresses` or `notReadyAddresses`"));
            }
            for (at, address) in list(subset, "/addresses").iter().enumerate() {
                if text(address, "/ip").parse::<std::net::IpAddr>().is_err() {
                    problems.push(FieldError::invalid(
                        format!("{path}.addresses[{at}].ip"),
                        text(address, "/ip"),
                        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    ));
                }
            }
            for (at, item) in list(subset, "/ports").iter().enumerate() {
                port(problems, &format!("{path}.ports[{at}].port"), item.get("port"));
            }
        }
    }
}
