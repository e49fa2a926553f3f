//! The pod networks of Nodes: `spec.podCIDR`.
//!
//! Kubernetes' controller manager gives them out after a Node is there. Here the write that makes the Node does, so a node
//! knows its network from the answer, and two nodes that register at once cannot get the same one. It has room for the pods
//! that the node says it can run.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shoal_api::quantity::Quantity;
use shoal_api::{FieldError, Status, metadata};
use shoal_store::{Transaction, View};

use crate::keys;

/// Networks are made of blocks of 256 addresses, 10.64.0.0/24 to 10.127.255.0/24.
const FIRST_BLOCK: u8 = 64;
const BLOCKS: u16 = 64 * 256;
/// Addresses of a network that no pod has: its first and last, and the node's own.
const NO_PODS: u64 = 3;
/// The blocks of the largest network, a /16.
const MOST_BLOCKS: u16 = 256;

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
        for block in before.map(blocks_of).unwrap_or_default() {
            transaction.delete(keys::pod_network(&block));
        }
        return Ok(());
    };
    let is_free = |network: &str| blocks_of(network).iter().all(|block| view.get(&keys::pod_network(block)).is_none());
    match network(node) {
        // Validation lets it change only from nothing.
        Some(_) if before.is_some() => {}
        Some(asked) if is_free(asked) => take(asked, &super::owner(node), transaction),
        Some(asked) => {
            let error = FieldError::invalid("spec.podCIDR", asked, "is the network of another node".to_owned());
            return Err(Status::invalid("", "Node", node_name(node), vec![error]));
        }
        None => {
            let mut networks = all(node_name(node), blocks_for(pods(node)));
            let Some(free) = networks.find(|network| is_free(network)) else { return Ok(()) };
            take(&free, &super::owner(node), transaction);
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

fn take(network: &str, owner: &str, transaction: &mut Transaction) {
    for block in blocks_of(network) {
        super::take(keys::pod_network(&block), owner, transaction);
    }
}

/// How many pods the node says that it can run.
fn pods(node: &Value) -> u64 {
    let text = node.pointer("/status/capacity/pods").and_then(Value::as_str);
    text.and_then(|text| text.parse::<Quantity>().ok()).and_then(|pods| u64::try_from(pods.units()).ok()).unwrap_or(0)
}

/// How many blocks have room for so many pods: a power of two.
fn blocks_for(pods: u64) -> u16 {
    let blocks = pods.saturating_add(NO_PODS).div_ceil(256).next_power_of_two();
    u16::try_from(blocks).unwrap_or(MOST_BLOCKS).min(MOST_BLOCKS)
}

/// The blocks that a network is made of. One that is smaller than a block, or larger than any that is given out, stands for itself.
fn blocks_of(network: &str) -> Vec<String> {
    let parsed = network
        .split_once('/')
        .and_then(|(address, bits)| Some((u32::from(address.parse::<Ipv4Addr>().ok()?), bits.parse::<u32>().ok()?)));
    let Some((first, bits @ 16..=24)) = parsed else { return vec![network.to_owned()] };
    let first = first & (u32::MAX << (32 - bits));
    (0..1u32 << (24 - bits)).map(|block| format!("{}/24", Ipv4Addr::from(first + (block << 8)))).collect()
}

/// All networks of so many blocks, from the one that the node's name leads to: nodes that register at once do not all want the
/// first, and one that comes back finds its old one, mostly.
fn all(name: &str, blocks: u16) -> impl Iterator<Item = String> + use<> {
    let digest = Sha256::digest(name.as_bytes());
    let networks = BLOCKS / blocks;
    let start = u16::from_be_bytes([digest[0], digest[1]]) % networks;
    let bits = 24 - blocks.ilog2();
    (0..networks).map(move |step| {
        let [high, low] = ((start + step) % networks * blocks).to_be_bytes();
        format!("10.{}.{low}.0/{bits}", FIRST_BLOCK + high)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_network_has_room_for_the_node_s_pods() {
        for (pods, blocks) in [(0, 1), (250, 1), (253, 1), (254, 2), (1_000, 4), (10_000, 64), (u64::MAX, 256)] {
            assert_eq!(blocks_for(pods), blocks, "{pods}");
        }
        let node = json!({"status": {"capacity": {"pods": "10k"}}});
        assert_eq!((pods(&node), pods(&json!({}))), (10_000, 0));
    }

    #[test]
    fn networks_of_one_size_share_no_block_and_use_all() {
        for size in [1, 4, 64, 256] {
            let mut seen = BTreeSet::new();
            for network in all("w1", size) {
                let blocks = blocks_of(&network);
                assert_eq!(blocks.len(), usize::from(size), "{network}");
                assert!(blocks.into_iter().all(|block| seen.insert(block)), "{network}");
            }
            assert_eq!(seen.len(), usize::from(BLOCKS));
        }
        assert_eq!(blocks_of("10.64.5.9/23"), ["10.64.4.0/24", "10.64.5.0/24"]);
        for alone in ["10.64.0.0/25", "10.0.0.0/8", "fd00::/64", "nonsense"] {
            assert_eq!(blocks_of(alone), [alone]);
        }
    }
}
