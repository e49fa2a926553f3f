//! One UDP port of a pod: to pods and Services through the network, to the outside through a socket of this machine.
//!
//! Whoever sent it a datagram may be answered, whatever the policy says of it, as a connection goes both ways.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use shoal_engine::{Datagrams, SocketFailure, Sockets as _};
use shoal_network::{DATAGRAM_BYTES, Datagram, DatagramPort, Flows, Inlet, is_ready_endpoint};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use crate::host_ports::Opened;
use crate::pod_sockets::{PodSockets, of_system};
use crate::reach::Reach;

/// How many peers a port remembers; with the next one all are forgotten.
const PEERS: usize = 4_096;

/// A port for datagrams. Dropping it closes it.
pub struct PodDatagrams {
    sockets: PodSockets,
    /// What others know it by.
    address: SocketAddr,
    _of_node: Option<Opened>,
    inlet: Inlet,
    port: Mutex<DatagramPort>,
    flows: Mutex<Flows>,
    /// Who of the cluster sent it something.
    askers: Mutex<BTreeSet<SocketAddr>>,
    /// The sockets to the outside, for IPv4 and IPv6, made when they are needed.
    outside: Mutex<[Option<Outside>; 2]>,
}

/// A socket of this machine that stands for a pod's port outside the cluster.
struct Outside {
    /// For sending, which never waits.
    socket: std::net::UdpSocket,
    /// To whom the pod sent: nobody else's datagrams are let in.
    peers: Arc<Mutex<BTreeSet<SocketAddr>>>,
    _receiving: AbortOnDropHandle<()>,
}

impl PodDatagrams {
    /// Puts a pod's policy before its port, which may be one of the node's.
    pub fn new(sockets: PodSockets, port: DatagramPort, of_node: Option<Opened>) -> PodDatagrams {
        let own = port.address();
        let address = if of_node.is_some() { SocketAddr::new(sockets.address(), own.port()) } else { own };
        PodDatagrams {
            sockets,
            address,
            _of_node: of_node,
            inlet: port.inlet(),
            port: Mutex::new(port),
            flows: Mutex::default(),
            askers: Mutex::default(),
            outside: Mutex::default(),
        }
    }

    fn send_in_cluster(&self, to: SocketAddr, bytes: Bytes) {
        self.sockets.outbound().network.send_datagram(Datagram { from: self.address, to, bytes });
    }

    fn send_outside(&self, to: SocketAddr, bytes: &Bytes) -> Result<(), SocketFailure> {
        let mut outside = lock(&self.outside);
        let place = &mut outside[usize::from(to.is_ipv6())];
        let outside = match place {
            Some(outside) => outside,
            None => {
                let opened = Outside::open(to.is_ipv6(), self.address, self.inlet.clone());
                place.insert(opened.map_err(|error| of_system(&error))?)
            }
        };
        remember(&outside.peers, to);
        match outside.socket.send_to(bytes, to) {
            Ok(_) => Ok(()),
            // It is lost, as where a kernel's buffer is full.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(of_system(&error)),
        }
    }
}

impl Datagrams for PodDatagrams {
    fn port(&self) -> u16 {
        self.address.port()
    }

    fn send(&self, to: SocketAddr, bytes: Bytes) -> Result<(), SocketFailure> {
        if lock(&self.askers).contains(&to) {
            self.send_in_cluster(to, bytes);
            return Ok(());
        }
        let to = self.sockets.at_home(to, |home| self.sockets.outbound().network.local().takes_datagrams(home));
        match self.sockets.reach("udp", to).ok_or(SocketFailure::Denied)? {
            Reach::Pod => self.send_in_cluster(to, bytes),
            Reach::Outside => return self.send_outside(to, &bytes),
            Reach::Service(name) => {
                let network = &self.sockets.outbound().network;
                let table = network.table();
                let is_ready = |endpoint| is_ready_endpoint(&table, &name, to.port(), endpoint);
                let chosen = || network.datagram_endpoint(&name, to.port());
                let endpoint = lock(&self.flows).out(to, is_ready, chosen);
                self.send_in_cluster(endpoint.ok_or(SocketFailure::Refused)?, bytes);
            }
        }
        Ok(())
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<shoal_engine::Datagram> {
        let Poll::Ready(Some(Datagram { from, bytes, .. })) = lock(&self.port).poll_receive(context) else {
            return Poll::Pending;
        };
        let is_outside = lock(&self.outside).iter().flatten().any(|outside| lock(&outside.peers).contains(&from));
        if !is_outside {
            remember(&self.askers, from);
        }
        Poll::Ready(shoal_engine::Datagram { from: lock(&self.flows).back(from), bytes })
    }
}

impl Outside {
    /// Opens a socket whose datagrams go to `own` by `inlet`. Must be called on a thread of a runtime.
    fn open(is_ipv6: bool, own: SocketAddr, inlet: Inlet) -> std::io::Result<Outside> {
        let any: IpAddr = if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_nonblocking(true)?;
        let receiving = UdpSocket::from_std(socket.try_clone()?)?;
        let peers: Arc<Mutex<BTreeSet<SocketAddr>>> = Arc::default();
        let known = Arc::clone(&peers);
        let task = shoal_link::tasks::spawn_connection("datagrams from outside", async move {
            let mut buffer = vec![0; DATAGRAM_BYTES];
            loop {
                // What fails is what an earlier datagram met: it says nothing of the next one.
                let Ok((length, from)) = receiving.recv_from(&mut buffer).await else { continue };
                if lock(&known).contains(&from) {
                    let bytes = Bytes::copy_from_slice(&buffer[..length]);
                    // One that is full loses it.
                    let _ = inlet.push(Datagram { from, to: own, bytes });
                }
            }
        });
        Ok(Outside { socket, peers, _receiving: AbortOnDropHandle::new(task) })
    }
}

fn remember(peers: &Mutex<BTreeSet<SocketAddr>>, peer: SocketAddr) {
    let mut peers = lock(peers);
    if peers.len() >= PEERS {
        peers.clear();
    }
    peers.insert(peer);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
