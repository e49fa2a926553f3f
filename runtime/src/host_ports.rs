//! The host ports of this node: which pod has which, and the listeners that lead to them.
//!
//! The pods that share the node's address (`hostNetwork`) are reached at it the same way: within the cluster by the network's own
//! table, from outside by these listeners, at the ports that they name and at whatever else they listen at.
//!
//! A pod has its ports from when the node takes it until nothing of it runs; two pods never have one port. That somebody else
//! of the machine has it is told in an event and tried again: the pod runs meanwhile, as it does under Kubernetes, where a
//! port is a rule of the packet filter and not a socket.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use shoal_network::{Door, Listeners, NodePort, Protocol};
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
    /// Those that its containers name.
    named: Vec<HostPort>,
    /// Those that it listens at by now, and how often, if it shares the node's address.
    opened: BTreeMap<(Protocol, u16), usize>,
}

impl Claim {
    fn ports(&self) -> impl Iterator<Item = HostPort> {
        let is_named = |(protocol, port): &(Protocol, u16)| {
            self.named.iter().any(|named| (named.protocol, named.port) == (*protocol, *port))
        };
        let opened = self.opened.keys().filter(move |opened| !is_named(opened));
        self.named.iter().copied().chain(opened.map(|(protocol, port)| HostPort::opened(*protocol, *port)))
    }
}

impl HostPorts {
    /// Gives the pod its ports, if it wants any.
    ///
    /// # Errors
    /// Why it is not to run here: another pod has one of them.
    pub fn claim(&self, pod: &Pod, address: IpAddr) -> Result<(), Refusal> {
        let named = host_ports::of_pod(pod);
        if named.is_empty() && !spec::has_host_network(pod) {
            return Ok(());
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if named.iter().any(|port| is_taken(&claims, spec::uid(pod), port)) {
            return Err(host_ports::conflict());
        }
        let claim = Claim { pod: Arc::new(pod.clone()), address, named, opened: BTreeMap::new() };
        claims.insert(spec::uid(pod).to_owned(), claim);
        self.changed.send_replace(());
        Ok(())
    }

    /// Gives a pod that shares the node's address the port that it listens at, for as long as the answer lives; none if another
    /// pod has it.
    fn open(self: &Arc<Self>, uid: &str, protocol: Protocol, port: u16) -> Option<Opened> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if is_taken(&claims, uid, &HostPort::opened(protocol, port)) {
            return None;
        }
        *claims.get_mut(uid)?.opened.entry((protocol, port)).or_default() += 1;
        self.changed.send_replace(());
        Some(Opened { ports: Arc::clone(self), uid: uid.to_owned(), port: (protocol, port) })
    }

    fn close(&self, uid: &str, port: (Protocol, u16)) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(claim) = claims.get_mut(uid) else { return };
        if let Some(count) = claim.opened.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                claim.opened.remove(&port);
                self.changed.send_replace(());
            }
        }
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
            // One that shares the node's address answers by it.
            let is_hosted = spec::has_host_network(&claim.pod);
            let door = |port: HostPort| {
                let own = SocketAddr::new(claim.address, port.container_port);
                let to = if is_hosted { SocketAddr::new(node, port.port) } else { own };
                ((port.protocol, port.listens_at(node)), (Door::Pod(to), Arc::clone(&claim.pod)))
            };
            claim.ports().map(door).collect::<Vec<_>>()
        };
        claims.values().flat_map(of_claim).collect()
    }

    /// At which ports of the node's address its pods are that share it, and where those are in the pods' network.
    fn hosted(&self, node: IpAddr) -> HashMap<NodePort, SocketAddr> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let of_claim = |claim: &Claim| {
            let place = |port: HostPort| {
                ((port.protocol, SocketAddr::new(node, port.port)), SocketAddr::new(claim.address, port.container_port))
            };
            claim.ports().map(place).collect::<Vec<_>>()
        };
        claims.values().filter(|claim| spec::has_host_network(&claim.pod)).flat_map(of_claim).collect()
    }
}

/// Whether another pod than this one has the port.
fn is_taken(claims: &BTreeMap<String, Claim>, uid: &str, port: &HostPort) -> bool {
    claims.iter().filter(|(of, _)| *of != uid).any(|(_, claim)| claim.ports().any(|taken| port.collides(&taken)))
}

/// A port of the node that a pod listens at. Dropping it gives the port back.
pub struct Opened {
    ports: Arc<HostPorts>,
    uid: String,
    port: (Protocol, u16),
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.ports.close(&self.uid, self.port);
    }
}

/// The node's network as one pod has it that shares it. Cheap to clone.
#[derive(Clone)]
pub struct HostNetwork {
    /// The node's address, which is the pod's too.
    pub address: IpAddr,
    uid: String,
    ports: Arc<HostPorts>,
}

impl HostNetwork {
    /// None for a pod with an address of its own.
    pub fn of(context: &Context, pod: &Pod) -> Option<HostNetwork> {
        spec::has_host_network(pod).then(|| HostNetwork {
            address: context.config.node_address,
            uid: spec::uid(pod).to_owned(),
            ports: Arc::clone(&context.host_ports),
        })
    }

    /// The pod listens at this port; none if another pod of the node has it.
    pub fn open(&self, protocol: Protocol, port: u16) -> Option<Opened> {
        self.ports.open(&self.uid, protocol, port)
    }
}

/// Keeps the listeners for ever.
pub async fn keep(context: Arc<Context>) {
    let mut changes = context.host_ports.changed.subscribe();
    let mut listeners = Listeners::new(Arc::clone(&context.network), context.guests.threads());
    let mut told: BTreeSet<(String, NodePort)> = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        context.network.local().set_hosted(context.host_ports.hosted(context.config.node_address));
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
        assert!(ports.hosted(node).is_empty());
    }

    #[test]
    fn a_pod_that_shares_the_node_s_address_has_the_ports_that_it_names_and_those_that_it_listens_at() {
        let ports = Arc::new(HostPorts::default());
        let (address, node) = (IpAddr::from([10, 64, 0, 2]), IpAddr::from([192, 0, 2, 1]));
        let mut own = pod("a", 80);
        own.spec.as_mut().expect("a specification").host_network = Some(true);
        assert_eq!(ports.claim(&own, address), Ok(()));
        let listening = |ports: &Arc<HostPorts>| -> Vec<String> {
            let mut hosted: Vec<_> = ports.hosted(node).into_iter().collect();
            hosted.sort();
            hosted.into_iter().map(|((protocol, at), to)| format!("{} {at} {to}", protocol.name())).collect()
        };
        let named = "TCP 192.0.2.1:80 10.64.0.2:80";
        assert_eq!(listening(&ports), [named]);
        let both =
            (ports.open("a", Protocol::Udp, 53).expect("free"), ports.open("a", Protocol::Udp, 53).expect("its own"));
        assert_eq!(listening(&ports), [named, "UDP 192.0.2.1:53 10.64.0.2:53"]);
        let doors: Vec<_> = ports.wanted(node).into_values().map(|(door, _)| door).collect();
        assert_eq!(doors, [80, 53].map(|port| Door::Pod(SocketAddr::new(node, port))));
        // Others have neither, whether they share the address or only want a port.
        assert!(ports.open("b", Protocol::Udp, 53).is_none());
        assert!(ports.claim(&pod("b", 80), address).is_err());
        drop(both.0);
        assert_eq!(listening(&ports).len(), 2);
        drop(both.1);
        drop(ports.open("a", Protocol::Tcp, 80).expect("its own"));
        assert_eq!(listening(&ports), [named]);
    }
}
