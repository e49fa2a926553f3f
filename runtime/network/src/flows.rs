//! Which endpoint the datagrams of one socket to a Service go to, and whose address its answers bear. Pure.
//!
//! A socket that sends to a Service is answered by the Service, though a pod behind it answers: what goes out is turned to
//! an endpoint, what comes back is turned round (as the kernel's connection tracking does for kube-proxy).

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How many Services one socket may talk to; the next one makes it forget all.
const FLOWS: usize = 1_024;

/// The Services that one socket talks to.
#[derive(Debug, Clone, Default)]
pub struct Flows {
    endpoints: BTreeMap<SocketAddr, SocketAddr>,
    services: BTreeMap<SocketAddr, SocketAddr>,
}

impl Flows {
    /// Where a datagram to a Service's address goes: to its endpoint of before while `is_ready` says so, else to the one
    /// that `choose` gives; none if there is none.
    pub fn out(
        &mut self,
        service: SocketAddr,
        is_ready: impl Fn(SocketAddr) -> bool,
        choose: impl FnOnce() -> Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        if let Some(endpoint) = self.endpoints.get(&service) {
            if is_ready(*endpoint) {
                return Some(*endpoint);
            }
            self.services.remove(endpoint);
            self.endpoints.remove(&service);
        }
        let endpoint = choose()?;
        if self.endpoints.len() >= FLOWS {
            *self = Flows::default();
        }
        self.endpoints.insert(service, endpoint);
        self.services.insert(endpoint, service);
        Some(endpoint)
    }

    /// Whose address a datagram from `from` bears.
    pub fn back(&self, from: SocketAddr) -> SocketAddr {
        self.services.get(&from).copied().unwrap_or(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 96, 0, n], 53))
    }

    fn pod(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 64, 0, n], 5_353))
    }

    proptest! {
        #[test]
        fn whoever_was_asked_answers_under_the_name_it_was_asked_by(steps in prop::collection::vec((0u8..4, 0u8..4, any::<bool>()), 1..60)) {
            let mut flows = Flows::default();
            // Every Service has pods of its own here.
            for (n, chosen, is_ready) in steps {
                let before = flows.endpoints.get(&service(n)).copied();
                let out = flows.out(service(n), |_| is_ready, || Some(pod(n * 4 + chosen))).expect("an endpoint");
                prop_assert_eq!(flows.back(out), service(n));
                if let Some(before) = before.filter(|_| is_ready) {
                    prop_assert_eq!(out, before);
                }
                prop_assert_eq!(flows.endpoints.len(), flows.services.len());
            }
        }
    }

    #[test]
    fn a_service_without_endpoints_takes_nothing_and_strangers_keep_their_address() {
        let mut flows = Flows::default();
        assert_eq!(flows.out(service(1), |_| true, || None), None);
        assert_eq!(flows.back(pod(1)), pod(1));
    }
}
