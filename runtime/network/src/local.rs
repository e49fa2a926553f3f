//! What runs on this node: the pods' addresses and what answers at their ports.
//!
//! A pod that is asked to stop is marked first: the node's own requests then prefer other endpoints while requests that
//! other nodes still send are answered until the function refuses them. A process's connections and datagrams go through
//! queues in memory: nobody else of this machine can reach them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{Request, Response};

use crate::Body;
use crate::listeners::NodePort;
use crate::ports::{DatagramPort, DatagramQueue, ProcessPort, StreamPort};
use crate::table::Protocol;

/// A request that came back untouched: it may be sent to another endpoint.
pub struct Refused {
    /// The request, as it was given.
    pub request: Box<Request<Body>>,
    /// Why, for the answer if there is no other endpoint.
    pub reason: String,
}

impl Refused {
    /// Gives a request back.
    pub fn new(request: Request<Body>, reason: impl Into<String>) -> Refused {
        Refused { request: Box::new(request), reason: reason.into() }
    }
}

/// Something on this node that answers HTTP requests by a call, such as a function of the engine.
pub trait HttpTarget: Send + Sync + 'static {
    /// Answers the request, or gives it back untouched.
    fn call(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, Refused>>;
}

/// What answers at a pod's port.
#[derive(Clone)]
pub enum LocalTarget {
    /// A function, called without a socket.
    Function(Arc<dyn HttpTarget>),
    /// A process that takes connections.
    Process(ProcessPort),
}

/// One pod of this node.
#[derive(Default)]
struct LocalPod {
    ports: BTreeMap<u16, LocalTarget>,
    datagrams: BTreeMap<u16, DatagramQueue>,
    is_stopping: bool,
}

/// The ports that are given to those who do not say which.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// The pods of this node by address. Cheap to clone.
#[derive(Clone, Default)]
pub struct LocalPods {
    pods: Arc<RwLock<HashMap<IpAddr, LocalPod>>>,
    hosted: Arc<ArcSwap<HashMap<NodePort, SocketAddr>>>,
}

impl LocalPods {
    /// Which ports of the node's own address belong to pods that share it, and where those pods are in the pods' network.
    pub fn set_hosted(&self, ports: HashMap<NodePort, SocketAddr>) {
        self.hosted.store(Arc::new(ports));
    }

    /// Where a pod is in the pods' network: elsewhere than it is told to be if it shares its node's address.
    fn home(&self, protocol: Protocol, address: SocketAddr) -> SocketAddr {
        let hosted = self.hosted.load();
        if hosted.is_empty() { address } else { hosted.get(&(protocol, address)).copied().unwrap_or(address) }
    }

    /// An address that belongs to this node from now on, though nothing listens yet.
    pub fn add(&self, address: IpAddr) {
        self.change(|pods| {
            pods.entry(address).or_default();
        });
    }

    /// Lets `target` answer at the pod's port.
    pub fn listen(&self, address: SocketAddr, target: &LocalTarget) {
        self.change(|pods| pods.entry(address.ip()).or_default().ports.insert(address.port(), target.clone()));
    }

    /// Nothing answers at this port any more.
    pub fn close(&self, address: SocketAddr) {
        self.change(|pods| pods.get_mut(&address.ip()).and_then(|pod| pod.ports.remove(&address.port())));
    }

    /// Takes the connections to a pod's port, as long as the answer lives; with `only_own`, those of the pod itself. None
    /// if something listens there already.
    pub fn listen_for_streams(&self, address: SocketAddr, only_own: bool) -> Option<StreamPort> {
        let (port, target) = StreamPort::new(self.clone(), address, only_own);
        let is_free = self.change(|pods| {
            let ports = &mut pods.entry(address.ip()).or_default().ports;
            let is_free = !ports.contains_key(&address.port());
            if is_free {
                ports.insert(address.port(), LocalTarget::Process(target));
            }
            is_free
        });
        is_free.then_some(port)
    }

    /// Takes the datagrams to a pod's port, as long as the answer lives; port 0 is any that is free. None if there is none.
    pub fn bind(&self, address: SocketAddr) -> Option<DatagramPort> {
        let (mut port, queue) = DatagramPort::new(self.clone(), address);
        let bound = self.change(|pods| {
            let ports = &mut pods.entry(address.ip()).or_default().datagrams;
            let wanted = match address.port() {
                0 => EPHEMERAL.into_iter().find(|port| !ports.contains_key(port)),
                port => Some(port).filter(|port| !ports.contains_key(port)),
            };
            if let Some(port) = wanted {
                ports.insert(port, queue);
            }
            wanted
        });
        port.address.set_port(bound?);
        Some(port)
    }

    /// The process listens here no more, unless another one does meanwhile.
    pub(crate) fn close_streams(&self, address: SocketAddr, own: &ProcessPort) {
        self.change(|pods| {
            let ports = &mut pods.get_mut(&address.ip())?.ports;
            let is_own = matches!(ports.get(&address.port())?, LocalTarget::Process(port) if port.is_same(own));
            is_own.then(|| ports.remove(&address.port()))
        });
    }

    /// As [`LocalPods::close_streams`].
    pub(crate) fn unbind(&self, address: SocketAddr, own: &DatagramQueue) {
        self.change(|pods| {
            let queues = &mut pods.get_mut(&address.ip())?.datagrams;
            let is_own = queues.get(&address.port())?.is_same(own);
            is_own.then(|| queues.remove(&address.port()))
        });
    }

    /// The pod will go: this node's own requests try it last.
    pub fn mark_stopping(&self, address: IpAddr) {
        self.change(|pods| {
            if let Some(pod) = pods.get_mut(&address) {
                pod.is_stopping = true;
            }
        });
    }

    /// The address is free.
    pub fn remove(&self, address: IpAddr) {
        self.change(|pods| pods.remove(&address));
    }

    /// Whether the address is of a pod of this node, its own or the node's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let is_own = self.look(address, |_| Some(())).is_some();
        is_own || self.hosted.load().keys().any(|(_, hosted)| hosted.ip() == address)
    }

    /// Whether a pod of this node is there that stops.
    pub fn is_stopping(&self, address: SocketAddr) -> bool {
        let home = self.home(Protocol::Tcp, address).ip();
        self.look(home, |pod| Some(pod.is_stopping)).unwrap_or_default()
    }

    /// What answers at this address and port.
    pub fn target(&self, address: SocketAddr) -> Option<LocalTarget> {
        let address = self.home(Protocol::Tcp, address);
        self.look(address.ip(), |pod| pod.ports.get(&address.port()).cloned())
    }

    /// Whether somebody takes the datagrams to this address and port.
    pub fn takes_datagrams(&self, address: SocketAddr) -> bool {
        self.queue(address).is_some()
    }

    /// Who takes the datagrams to this address and port.
    pub(crate) fn queue(&self, address: SocketAddr) -> Option<DatagramQueue> {
        let address = self.home(Protocol::Udp, address);
        self.look(address.ip(), |pod| pod.datagrams.get(&address.port()).cloned())
    }

    fn look<T>(&self, address: IpAddr, what: impl FnOnce(&LocalPod) -> Option<T>) -> Option<T> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).get(&address).and_then(what)
    }

    /// What `change` takes out comes back and is dropped by the caller: a port that goes may close others here.
    fn change<T>(&self, change: impl FnOnce(&mut HashMap<IpAddr, LocalPod>) -> T) -> T {
        change(&mut self.pods.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_owner_and_is_free_when_that_goes() {
        let pods = LocalPods::default();
        let address: SocketAddr = "10.64.0.2:80".parse().expect("an address");
        pods.add(address.ip());
        let first = pods.listen_for_streams(address, false).expect("it is free");
        assert!(pods.listen_for_streams(address, false).is_none());
        drop(first);
        assert!(pods.target(address).is_none());
        assert!(pods.listen_for_streams(address, false).is_some());
    }

    #[test]
    fn a_process_that_goes_late_leaves_its_successor_alone() {
        let pods = LocalPods::default();
        let address: SocketAddr = "10.64.0.2:80".parse().expect("an address");
        let first = pods.listen_for_streams(address, false).expect("it is free");
        pods.remove(address.ip());
        let _second = pods.listen_for_streams(address, false).expect("it is free");
        drop(first);
        assert!(pods.target(address).is_some());
    }

    #[test]
    fn a_pod_that_shares_its_node_s_address_is_found_at_it_and_at_its_ports_only() {
        let pods = LocalPods::default();
        let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let (own, node) = (at("10.64.0.2:80"), at("192.0.2.1:80"));
        pods.add(own.ip());
        let _port = pods.listen_for_streams(own, false).expect("it is free");
        let _datagrams = pods.bind(at("10.64.0.2:53")).expect("it is free");
        assert!(pods.target(node).is_none() && !pods.contains(node.ip()));
        pods.set_hosted(
            [((Protocol::Tcp, node), own), ((Protocol::Udp, at("192.0.2.1:53")), at("10.64.0.2:53"))].into(),
        );
        assert!(pods.target(node).is_some() && pods.contains(node.ip()));
        assert!(pods.target(at("192.0.2.1:53")).is_none() && pods.queue(at("192.0.2.1:53")).is_some());
        assert!(!pods.is_stopping(node));
        pods.mark_stopping(own.ip());
        assert!(pods.is_stopping(node) && !pods.is_stopping(at("192.0.2.1:81")));
        pods.set_hosted(HashMap::new());
        assert!(pods.target(node).is_none());
    }

    #[test]
    fn who_names_no_port_gets_one_of_its_own() {
        let pods = LocalPods::default();
        let any: SocketAddr = "10.64.0.2:0".parse().expect("an address");
        let (one, two) = (pods.bind(any).expect("a port"), pods.bind(any).expect("a port"));
        assert_ne!(one.address(), two.address());
        assert!(pods.bind(one.address()).is_none());
        assert!(pods.queue(one.address()).is_some());
        let freed = one.address();
        drop(one);
        assert!(pods.queue(freed).is_none());
    }
}
