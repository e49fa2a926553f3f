//! The host ports of this node: which pod has which, and the listeners that lead to them.
//!
//! A pod has its ports from when the node takes it until nothing of it runs; two pods never have one port. That somebody else
//! of the machine has it is told in an event and tried again: the pod runs meanwhile, as it does under Kubernetes, where a
//! port is a rule of the packet filter and not a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use shoal_network::{Door, Listeners, NodePort};
use tokio::sync::watch;

use crate::context::Context;
use crate::limits::NODE_PORT_RETRY;
use crate::pod::host_ports::{self, HostPort};
use crate::pod::observed::Refusal;
use crate::pod::spec;

/// Who has which ports.
#[derive(Default)]
pub struct HostPorts {
    claims: Mutex<BTreeMap<String, Claim>>,
    changed: watch::Sender<()>,
}

/// The ports of one pod.
struct Claim {
    pod: Arc<Pod>,
    address: IpAddr,
    ports: Vec<HostPort>,
}

impl HostPorts {
    /// Gives the pod its ports, if it wants any.
    ///
    /// # Errors
    /// Why it is not to run here: another pod has one of them.
    pub fn claim(&self, pod: &Pod, address: IpAddr) -> Result<(), Refusal> {
        let ports = host_ports::of_pod(pod);
        if ports.is_empty() {
            return Ok(());
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let of_others = claims.iter().filter(|(uid, _)| *uid != spec::uid(pod));
        let mut taken = of_others.flat_map(|(_, claim)| &claim.ports);
        if taken.any(|taken| ports.iter().any(|port| port.collides(taken))) {
            return Err(host_ports::conflict());
        }
        claims.insert(spec::uid(pod).to_owned(), Claim { pod: Arc::new(pod.clone()), address, ports });
        self.changed.send_replace(());
        Ok(())
    }

    /// The pod needs its ports no more.
    pub fn release(&self, uid: &str) {
        if self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(uid).is_some() {
            self.changed.send_replace(());
        }
    }

    /// Where the node listens, where that leads, and for whom.
    fn wanted(&self, node: IpAddr) -> BTreeMap<NodePort, (Door, Arc<Pod>)> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let of_claim = |claim: &Claim| {
            let door = |port: &HostPort| {
                let to = Door::Pod(SocketAddr::new(claim.address, port.container_port));
                ((port.protocol, port.listens_at(node)), (to, Arc::clone(&claim.pod)))
            };
            claim.ports.iter().map(door).collect::<Vec<_>>()
        };
        claims.values().flat_map(of_claim).collect()
    }
}

/// Keeps the listeners for ever.
pub async fn keep(context: Arc<Context>) {
    let mut changes = context.host_ports.changed.subscribe();
    let mut listeners = Listeners::new(Arc::clone(&context.network), context.guests.threads());
    let mut told: BTreeSet<(String, NodePort)> = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        let wanted = context.host_ports.wanted(context.config.node_address);
        let failures = listeners.keep(&wanted.iter().map(|(port, (door, _))| (*port, *door)).collect()).await;
        let mut failing = BTreeSet::new();
        for failure in &failures {
            let Some((_, pod)) = wanted.get(&failure.port) else { continue };
            let mark = (spec::uid(pod).to_owned(), failure.port);
            if !told.contains(&mark) {
                let (protocol, address) = (failure.port.0.name(), failure.port.1);
                let message = format!("cannot listen on host port {address} ({protocol}): {}", failure.source);
                context.events.warning(pod, None, "HostPortConflict", &message);
            }
            failing.insert(mark);
        }
        told = failing;
        let retry = if failures.is_empty() { Duration::from_secs(3_600) } else { NODE_PORT_RETRY };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(retry) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, port: u16) -> Pod {
        let ports = json!([{"containerPort": 80, "hostPort": port}]);
        serde_json::from_value(
            json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c", "ports": ports}]}}),
        )
        .expect("a pod")
    }

    #[test]
    fn a_port_has_one_pod_until_that_gives_it_back() {
        let ports = HostPorts::default();
        let address = IpAddr::from([10, 64, 0, 2]);
        assert_eq!(ports.claim(&pod("a", 8080), address), Ok(()));
        assert_eq!(ports.claim(&pod("a", 8080), address), Ok(()), "the same pod, after a restart");
        let refusal = ports.claim(&pod("b", 8080), address).expect_err("it is taken");
        assert_eq!(refusal.reason, "NodePorts");
        assert_eq!(ports.claim(&pod("b", 8081), address), Ok(()));
        ports.release("a");
        assert_eq!(ports.claim(&pod("c", 8080), address), Ok(()));
        let node = IpAddr::from([127, 0, 1, 1]);
        let doors: Vec<String> = ports.wanted(node).keys().map(|(_, at)| at.to_string()).collect();
        assert_eq!(doors, ["127.0.1.1:8080", "127.0.1.1:8081"]);
    }
}
