//! What runs on this node: the pods' addresses and what answers at their ports.
//!
//! A pod that is asked to stop is marked first: the node's own requests then prefer other endpoints while requests that
//! other nodes still send are answered until the function refuses them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{Request, Response};

use crate::Body;

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
    /// A process that listens at this address of the machine.
    Port(SocketAddr),
}

/// One pod of this node.
#[derive(Clone, Default)]
struct LocalPod {
    ports: BTreeMap<u16, LocalTarget>,
    is_stopping: bool,
}

/// The pods of this node by address. Cheap to read, copied when it changes.
#[derive(Default)]
pub struct LocalPods {
    pods: ArcSwap<BTreeMap<IpAddr, LocalPod>>,
}

impl LocalPods {
    /// An address that belongs to this node from now on, though nothing listens yet.
    pub fn add(&self, address: IpAddr) {
        self.change(|pods| {
            pods.entry(address).or_default();
        });
    }

    /// Lets `target` answer at the pod's port.
    pub fn listen(&self, address: SocketAddr, target: &LocalTarget) {
        self.change(|pods| {
            pods.entry(address.ip()).or_default().ports.insert(address.port(), target.clone());
        });
    }

    /// Nothing answers at this port any more.
    pub fn close(&self, address: SocketAddr) {
        self.change(|pods| {
            if let Some(pod) = pods.get_mut(&address.ip()) {
                pod.ports.remove(&address.port());
            }
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
        self.change(|pods| {
            pods.remove(&address);
        });
    }

    /// Whether the address is of a pod of this node.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.pods.load().contains_key(&address)
    }

    /// Whether it is a pod of this node that stops.
    pub fn is_stopping(&self, address: IpAddr) -> bool {
        self.pods.load().get(&address).is_some_and(|pod| pod.is_stopping)
    }

    /// What answers at this address and port.
    pub fn target(&self, address: SocketAddr) -> Option<LocalTarget> {
        self.pods.load().get(&address.ip())?.ports.get(&address.port()).cloned()
    }

    fn change(&self, change: impl Fn(&mut BTreeMap<IpAddr, LocalPod>)) {
        self.pods.rcu(|pods| {
            let mut pods = BTreeMap::clone(pods);
            change(&mut pods);
            pods
        });
    }
}
