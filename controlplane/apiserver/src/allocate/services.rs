//! Cluster addresses and node ports of Services.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rand::RngExt;
use serde_json::Value;
use shoal_api::{FieldError, Status, metadata};
use shoal_store::{Transaction, View};

use crate::keys;

/// The addresses of Services: 10.96.0.0/16. The first ones are kept for those that ask for them by name.
const CLUSTER_NETWORK: [u8; 2] = [10, 96];
const FIRST_ADDRESS: u16 = 256;
const LAST_ADDRESS: u16 = 65_534;
/// The ports that Services may have on every node.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// What a Service holds: its address and its node ports.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    address: Option<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

/// Fills in what `new` lacks, and adds to `transaction` what it takes and gives back.
///
/// # Errors
/// 422 when an address or port that is asked for is outside the range or taken; 500 when there is none left.
pub(super) fn settle(
    view: &View,
    new: Option<&mut Value>,
    old: Option<&Value>,
    transaction: &mut Transaction,
) -> Result<(), Status> {
    let before = old.map(held).unwrap_or_default();
    let after = match new {
        Some(service) => {
            fill_address(view, service, &before)?;
            fill_ports(view, service, &before)?;
            let after = held(service);
            take(&after, &before, &super::owner(service), transaction);
            after
        }
        None => Held::default(),
    };
    if let Some(address) = before.address.filter(|_| after.address != before.address) {
        transaction.delete(keys::cluster_address(address));
    }
    for port in before.ports.difference(&after.ports) {
        transaction.delete(keys::node_port(*port));
    }
    Ok(())
}

fn take(after: &Held, before: &Held, owner: &str, transaction: &mut Transaction) {
    if let Some(address) = after.address.filter(|_| after.address != before.address) {
        super::take(keys::cluster_address(address), owner, transaction);
    }
    for port in after.ports.difference(&before.ports) {
        super::take(keys::node_port(*port), owner, transaction);
    }
}

fn held(service: &Value) -> Held {
    let address = service.pointer("/spec/clusterIP").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let ports = ports(service)
        .filter_map(|port| port.get("nodePort").and_then(Value::as_u64))
        .filter_map(|port| u16::try_from(port).ok());
    Held { address, ports: ports.filter(|port| *port != 0).collect() }
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten()
}

fn kind(service: &Value) -> &str {
    service.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP")
}

fn fill_address(view: &View, service: &mut Value, before: &Held) -> Result<(), Status> {
    let external_name = kind(service) == "ExternalName";
    let name = metadata::name(service).unwrap_or_default().to_owned();
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    if external_name {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
        return Ok(());
    }
    let asked = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let address = match asked.as_str() {
        "None" => "None".to_owned(),
        "" => match before.address {
            Some(address) => address.to_string(),
            None => free_address(view)?.to_string(),
        },
        text => {
            let refuse = |message: String| {
                Status::invalid("", "Service", &name, vec![FieldError::invalid("spec.clusterIPs[0]", text, message)])
            };
            let address: Ipv4Addr = text.parse().map_err(|_| refuse("must be a valid IPv4 address".to_owned()))?;
            if address.octets()[..2] != CLUSTER_NETWORK {
                return Err(refuse("failed to allocate IP: the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16".to_owned()));
            }
            if before.address != Some(address) && view.get(&keys::cluster_address(address)).is_some() {
                return Err(refuse(format!("failed to allocate IP {address}: provided IP is already allocated")));
            }
            text.to_owned()
        }
    };
    spec.insert("clusterIPs".to_owned(), serde_json::json!([address]));
    spec.insert("clusterIP".to_owned(), address.into());
    spec.entry("ipFamilies").or_insert_with(|| serde_json::json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    Ok(())
}

fn free_address(view: &View) -> Result<Ipv4Addr, Status> {
    let at =
        |low: u16| Ipv4Addr::new(CLUSTER_NETWORK[0], CLUSTER_NETWORK[1], low.to_be_bytes()[0], low.to_be_bytes()[1]);
    let start = rand::rng().random_range(FIRST_ADDRESS..=LAST_ADDRESS);
    (start..=LAST_ADDRESS)
        .chain(FIRST_ADDRESS..start)
        .map(at)
        .find(|address| view.get(&keys::cluster_address(*address)).is_none())
        .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full".to_owned()))
}

fn fill_ports(view: &View, service: &mut Value, before: &Held) -> Result<(), Status> {
    let wants = matches!(kind(service), "NodePort" | "LoadBalancer");
    let name = metadata::name(service).unwrap_or_default().to_owned();
    let mut taken: BTreeSet<u16> = held(service).ports;
    let mut kept: Vec<u16> = before.ports.iter().copied().filter(|port| !taken.contains(port)).collect();
    let Some(ports) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return Ok(()) };
    for (index, port) in ports.iter_mut().enumerate() {
        let Some(port) = port.as_object_mut() else { continue };
        if !wants {
            port.remove("nodePort");
            continue;
        }
        let asked = port.get("nodePort").and_then(Value::as_u64).unwrap_or_default();
        let field = format!("spec.ports[{index}].nodePort");
        let refuse = |message: &str| {
            Status::invalid("", "Service", &name, vec![FieldError::invalid(&field, asked, message.to_owned())])
        };
        if asked == 0 {
            // A port that this Service had and no longer names is the first choice: a client that never sends
            // nodePort keeps what it was given.
            let free = match kept.pop() {
                Some(port) => port,
                None => free_port(view, &taken)?,
            };
            taken.insert(free);
            port.insert("nodePort".to_owned(), free.into());
            continue;
        }
        let number = u16::try_from(asked).ok().filter(|number| NODE_PORTS.contains(number));
        let number = number.ok_or_else(|| {
            refuse("provided port is not in the valid range. The range of valid ports is 30000-32767")
        })?;
        if !before.ports.contains(&number) && view.get(&keys::node_port(number)).is_some() {
            return Err(refuse("provided port is already allocated"));
        }
    }
    Ok(())
}

fn free_port(view: &View, taken: &BTreeSet<u16>) -> Result<u16, Status> {
    let (first, last) = (*NODE_PORTS.start(), *NODE_PORTS.end());
    let start = rand::rng().random_range(NODE_PORTS);
    (start..=last)
        .chain(first..start)
        .find(|port| !taken.contains(port) && view.get(&keys::node_port(*port)).is_none())
        .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full".to_owned()))
}
