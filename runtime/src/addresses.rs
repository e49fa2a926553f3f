//! The pods' addresses: which of the node's range are taken. Pure.
//!
//! A pod keeps its address over a restart of the agent. A node without a range gives none: any that it made up could be
//! another node's.

use std::collections::HashMap;
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
    fn usable(self) -> std::ops::Range<u32> {
        self.first + 2..self.first + self.size - 1
    }
}

/// Who has which address.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    range: Option<Range>,
    taken: HashMap<IpAddr, String>,
    by_pod: HashMap<String, IpAddr>,
    last: Option<u32>,
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
        let is_its = self.taken.get(&address).is_none_or(|owner| owner == uid);
        if is_its {
            self.give(address, uid);
        }
        is_its
    }

    /// An address for a new pod: the next one after the last given, so that one that was just freed rests. `None` if all
    /// are taken or the node has no range.
    pub fn take(&mut self, uid: &str) -> Option<IpAddr> {
        let usable = self.range?.usable();
        let from = self.last.map_or(usable.start, |last| last + 1).clamp(usable.start, usable.end);
        let mut round = (from..usable.end).chain(usable.start..from);
        let next = round.find(|address| !self.taken.contains_key(&address_of(*address)))?;
        self.last = Some(next);
        self.give(address_of(next), uid);
        Some(address_of(next))
    }

    /// The address of a pod.
    pub fn of(&self, uid: &str) -> Option<IpAddr> {
        self.by_pod.get(uid).copied()
    }

    /// The pod needs its address no more.
    pub fn free(&mut self, uid: &str) {
        if let Some(address) = self.by_pod.remove(uid) {
            self.taken.remove(&address);
        }
    }

    fn give(&mut self, address: IpAddr, uid: &str) {
        self.free(uid);
        self.taken.insert(address, uid.to_owned());
        self.by_pod.insert(uid.to_owned(), address);
    }
}

fn address_of(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_and_bad_ones_refused() {
        let range = Range::parse("10.64.3.7/24").expect("range");
        assert_eq!(range.usable().map(address_of).next(), Some("10.64.3.2".parse().expect("ip")));
        assert_eq!(range.usable().map(address_of).next_back(), Some("10.64.3.254".parse().expect("ip")));
        assert_eq!(range.usable().count(), 253);
        let ends = ("10.64.3.0".parse().expect("ip"), "10.64.3.255".parse().expect("ip"));
        assert_eq!(range.ends(), ends);
        assert!(!range.usable().any(|address| address_of(address) == range.gateway()));
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
                        prop_assert_eq!(addresses.of(&pod.to_string()), Some(address));
                        pods.insert(pod, address);
                    }
                } else if !take && pods.remove(&pod).is_some() {
                    addresses.free(&pod.to_string());
                }
            }
        }
    }
}
