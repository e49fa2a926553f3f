//! The pods' addresses: which of the node's range are taken. Pure.
//!
//! A pod keeps its address over a restart of the agent. A node without a range gives none: any that it made up could be
//! another node's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Node;

/// A range of IPv4 addresses, `address/prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u32,
    size: u32,
}

impl Range {
    /// Reads `10.64.3.0/24`; `None` if it is no IPv4 range with room for a pod.
    pub fn parse(text: &str) -> Option<Range> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<Ipv4Addr>().ok()?, bits.parse::<u32>().ok()?);
        if !(8..=30).contains(&bits) {
            return None;
        }
        let size = 1 << (32 - bits);
        Some(Range { first: u32::from(address) & !(size - 1), size })
    }

    /// The node's range, if it has been given one.
    pub fn of(node: &Node) -> Option<Range> {
        Range::parse(node.spec.as_ref()?.pod_cidr.as_deref()?)
    }

    /// The first and the last address.
    pub fn ends(self) -> (IpAddr, IpAddr) {
        (Ipv4Addr::from(self.first).into(), Ipv4Addr::from(self.first + (self.size - 1)).into())
    }

    /// The node's own address in it, where a bridge would have its own.
    pub fn gateway(self) -> IpAddr {
        Ipv4Addr::from(self.first + 1).into()
    }

    /// The addresses that pods may have: without the network's, the first and the last.
    fn usable(self) -> impl Iterator<Item = IpAddr> {
        (self.first + 2..self.first + self.size - 1).map(|address| IpAddr::V4(Ipv4Addr::from(address)))
    }
}

/// Who has which address.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    range: Option<Range>,
    taken: BTreeMap<IpAddr, String>,
    last: Option<IpAddr>,
}

impl Addresses {
    /// Nobody has one yet.
    pub fn new(range: Option<Range>) -> Addresses {
        Addresses { range, ..Addresses::default() }
    }

    /// From now on new pods get addresses of this range; the others keep theirs. Whether it is another one than before.
    pub fn set_range(&mut self, range: Range) -> bool {
        self.range.replace(range) != Some(range)
    }

    /// Gives the address back to a pod that had it; false if another pod has it.
    pub fn keep(&mut self, address: IpAddr, uid: &str) -> bool {
        self.taken.entry(address).or_insert_with(|| uid.to_owned()) == uid
    }

    /// An address for a new pod: the next one after the last given, so that one that was just freed rests. `None` if all
    /// are taken or the node has no range.
    pub fn take(&mut self, uid: &str) -> Option<IpAddr> {
        let free = |address: &IpAddr| !self.taken.contains_key(address);
        let after = |address: &IpAddr| self.last.is_none_or(|last| *address > last);
        let range = self.range?;
        let next = range.usable().find(|a| after(a) && free(a)).or_else(|| range.usable().find(free))?;
        self.taken.insert(next, uid.to_owned());
        self.last = Some(next);
        Some(next)
    }

    /// The address of a pod.
    pub fn of(&self, uid: &str) -> Option<IpAddr> {
        self.taken.iter().find(|(_, owner)| *owner == uid).map(|(address, _)| *address)
    }

    /// The pod needs its address no more.
    pub fn free(&mut self, uid: &str) {
        self.taken.retain(|_, owner| owner != uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_and_bad_ones_refused() {
        let range = Range::parse("10.64.3.7/24").expect("range");
        assert_eq!(range.usable().next(), Some("10.64.3.2".parse().expect("ip")));
        assert_eq!(range.usable().last(), Some("10.64.3.254".parse().expect("ip")));
        assert_eq!(range.usable().count(), 253);
        let ends = ("10.64.3.0".parse().expect("ip"), "10.64.3.255".parse().expect("ip"));
        assert_eq!(range.ends(), ends);
        assert!(!range.usable().any(|address| address == range.gateway()));
        for bad in ["", "10.64.0.0", "10.64.0.0/33", "fd00::/64", "10.64.0.0/31"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_two_pods_have_one_address(steps in prop::collection::vec((any::<bool>(), 0u8..12), 0..200)) {
            let mut addresses = Addresses::new(Range::parse("10.64.0.0/28"));
            let mut pods: BTreeMap<u8, IpAddr> = BTreeMap::new();
            for (take, pod) in steps {
                if take && !pods.contains_key(&pod) {
                    let address = addresses.take(&pod.to_string());
                    prop_assert_eq!(address.is_none(), pods.len() == 13);
                    if let Some(address) = address {
                        prop_assert!(!pods.values().any(|a| *a == address));
                        pods.insert(pod, address);
                    }
                } else if !take && pods.remove(&pod).is_some() {
                    addresses.free(&pod.to_string());
                }
            }
        }
    }
}
