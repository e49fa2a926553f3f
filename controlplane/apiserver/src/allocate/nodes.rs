//! The pod networks of Nodes: `spec.podCIDR`.
//!
//! Kubernetes' controller manager gives them out after a Node is there. Here the write that makes the Node does, so a node
//! knows its network from the answer, and two nodes that register at once cannot get the same one.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shoal_api::{FieldError, Status, metadata};
use shoal_store::{Transaction, View};

use crate::keys;

/// The networks are 10.64.0.0/24 to 10.127.255.0/24.
const FIRST_NETWORK: u8 = 64;
const NETWORKS: u16 = 64 * 256;

/// Gives `new` a network if it has none and one is left, and adds to `transaction` what it takes and gives back.
///
/// # Errors
/// 422 when the network that it asks for is another node's.
pub(super) fn settle(
    view: &View,
    new: Option<&mut Value>,
    old: Option<&Value>,
    transaction: &mut Transaction,
) -> Result<(), Status> {
    let before = old.and_then(network);
    let Some(node) = new else {
        if let Some(network) = before {
            transaction.delete(keys::pod_network(network));
        }
        return Ok(());
    };
    let is_free = |network: &str| view.get(&keys::pod_network(network)).is_none();
    match network(node) {
        // Validation lets it change only from nothing.
        Some(_) if before.is_some() => {}
        Some(asked) if is_free(asked) => super::take(keys::pod_network(asked), &super::owner(node), transaction),
        Some(asked) => {
            let error = FieldError::invalid("spec.podCIDR", asked, "is the network of another node".to_owned());
            return Err(Status::invalid("", "Node", node_name(node), vec![error]));
        }
        None => {
            let Some(free) = all(node_name(node)).find(|network| is_free(network)) else { return Ok(()) };
            super::take(keys::pod_network(&free), &super::owner(node), transaction);
            if !node["spec"].is_object() {
                node["spec"] = json!({});
            }
            node["spec"]["podCIDRs"] = json!([free]);
            node["spec"]["podCIDR"] = free.into();
        }
    }
    Ok(())
}

fn network(node: &Value) -> Option<&str> {
    node.pointer("/spec/podCIDR").and_then(Value::as_str).filter(|network| !network.is_empty())
}

fn node_name(node: &Value) -> &str {
    metadata::name(node).unwrap_or_default()
}

/// All networks, from the one that the node's name leads to: nodes that register at once do not all want the first, and one
/// that comes back finds its old one, mostly.
fn all(name: &str) -> impl Iterator<Item = String> {
    let digest = Sha256::digest(name.as_bytes());
    let start = u16::from_be_bytes([digest[0], digest[1]]) % NETWORKS;
    (0..NETWORKS).map(move |step| {
        let [high, low] = ((start + step) % NETWORKS).to_be_bytes();
        format!("10.{}.{low}.0/24", FIRST_NETWORK + high)
    })
}
