//! A network of a few pods in memory, for guests to meet on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use shoal_engine::{Accepted, ByteStream, Datagram, Datagrams, Listener, SocketFailure, Sockets};
use tokio::sync::mpsc;

/// What all pods share. The name `server` is 10.64.0.2; nobody may go to 192.0.2.0/24.
#[derive(Default)]
pub struct World {
    pub listeners: BTreeMap<SocketAddr, mpsc::UnboundedSender<Accepted>>,
    pub datagrams: BTreeMap<SocketAddr, mpsc::UnboundedSender<Datagram>>,
}

/// One pod.
pub struct Pod {
    pub world: Arc<Mutex<World>>,
    address: IpAddr,
}

impl Pod {
    /// In a world of its own.
    pub fn new(address: &str) -> Arc<Pod> {
        Pod::of(&Arc::default(), address)
    }

    /// In a world with others.
    pub fn of(world: &Arc<Mutex<World>>, address: &str) -> Arc<Pod> {
        Arc::new(Pod { world: world.clone(), address: address.parse().expect("an address") })
    }

    /// Connects to the pod's port, if it listens there.
    pub fn open(&self, from: &str, port: u16) -> Option<ByteStream> {
        let world = self.world.lock().expect("a lock");
        let listener = world.listeners.get(&SocketAddr::new(self.address, port))?;
        let (ours, theirs) = tokio::io::duplex(4096);
        let accepted = Accepted { stream: Box::new(theirs), from: from.parse().expect("an address") };
        listener.send(accepted).ok()?;
        Some(Box::new(ours))
    }

    /// Hands a datagram to whoever is bound there.
    pub fn deliver(&self, to: SocketAddr, datagram: Datagram) {
        let world = self.world.lock().expect("a lock");
        if let Some(queue) = world.datagrams.get(&to) {
            let _ = queue.send(datagram);
        }
    }
}

impl Sockets for Pod {
    fn address(&self) -> IpAddr {
        self.address
    }

    fn listen(&self, port: u16, _only_own: bool) -> Result<Box<dyn Listener>, SocketFailure> {
        let (sender, queue) = mpsc::unbounded_channel();
        let address = SocketAddr::new(self.address, port);
        self.world.lock().expect("a lock").listeners.insert(address, sender);
        Ok(Box::new(Listening { world: self.world.clone(), address, queue }))
    }

    fn connect(&self, from: u16, to: SocketAddr) -> BoxFuture<'static, Result<ByteStream, SocketFailure>> {
        let from = SocketAddr::new(self.address, from).to_string();
        let pod = Pod { world: self.world.clone(), address: to.ip() };
        Box::pin(async move {
            if to.ip().to_string().starts_with("192.0.2.") {
                return Err(SocketFailure::Denied);
            }
            pod.open(&from, to.port()).ok_or(SocketFailure::Refused)
        })
    }

    fn bind(&self, port: u16) -> Result<Box<dyn Datagrams>, SocketFailure> {
        let (sender, queue) = mpsc::unbounded_channel();
        let address = SocketAddr::new(self.address, if port == 0 { 50_000 } else { port });
        self.world.lock().expect("a lock").datagrams.insert(address, sender);
        let pod = Pod { world: self.world.clone(), address: self.address };
        Ok(Box::new(Bound { pod, address, queue: Mutex::new(queue) }))
    }

    fn look_up(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, SocketFailure>> {
        let found =
            if name == "server" { Ok(vec![IpAddr::from([10, 64, 0, 2])]) } else { Err(SocketFailure::NameUnknown) };
        Box::pin(async move { found })
    }
}

struct Listening {
    world: Arc<Mutex<World>>,
    address: SocketAddr,
    queue: mpsc::UnboundedReceiver<Accepted>,
}

impl Listener for Listening {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Accepted>> {
        self.queue.poll_recv(context)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.world.lock().expect("a lock").listeners.remove(&self.address);
    }
}

struct Bound {
    pod: Pod,
    address: SocketAddr,
    queue: Mutex<mpsc::UnboundedReceiver<Datagram>>,
}

impl Datagrams for Bound {
    fn port(&self) -> u16 {
        self.address.port()
    }

    fn send(&self, to: SocketAddr, bytes: Bytes) -> Result<(), SocketFailure> {
        if to.ip().to_string().starts_with("192.0.2.") {
            return Err(SocketFailure::Denied);
        }
        self.pod.deliver(to, Datagram { from: self.address, bytes });
        Ok(())
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Datagram> {
        match self.queue.lock().expect("a lock").poll_recv(context) {
            Poll::Ready(Some(datagram)) => Poll::Ready(datagram),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
