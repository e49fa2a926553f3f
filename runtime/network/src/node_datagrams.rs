//! A listener that takes datagrams: each asker gets a port of its own in the pods' network, through which its answers come.
//!
//! The pods see the node's own address there, as they see a node's where it hides who asks (Kubernetes, "Virtual IPs and
//! Service Proxies", external traffic policy Cluster). An asker keeps its endpoint while that is ready.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::datagrams::is_ready_endpoint;
use crate::forward::Network;
use crate::limits::{DATAGRAM_FLOW_IDLE, DATAGRAM_FLOWS, DATAGRAM_QUEUE};
use crate::listeners::Door;
use crate::ports::DatagramPort;
use crate::table::Protocol;
use crate::wire::Datagram;

/// The largest datagram of UDP over IPv4, in bytes.
pub const DATAGRAM_BYTES: usize = 65_507;

/// Carries datagrams between `socket` and the pods behind it until it is told to stop.
pub(crate) async fn serve(network: Arc<Network>, socket: UdpSocket, door: Door, stop: CancellationToken) {
    let socket = Arc::new(socket);
    let mut askers: BTreeMap<SocketAddr, mpsc::Sender<Bytes>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // What fails here is an answer that an asker did not take: it says nothing of the next datagram.
        let Ok((length, asker)) = received else { continue };
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let bytes = match askers.get(&asker) {
            None => bytes,
            Some(queue) => match queue.try_send(bytes) {
                Err(mpsc::error::TrySendError::Closed(bytes)) => bytes,
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => continue,
            },
        };
        askers.retain(|_, queue| !queue.is_closed());
        let Some(gateway) = network.gateway().filter(|_| askers.len() < DATAGRAM_FLOWS) else { continue };
        let Some(own) = network.local().bind(SocketAddr::new(gateway, 0)) else { continue };
        let (sender, queue) = mpsc::channel(DATAGRAM_QUEUE);
        // It is empty and has room.
        let _ = sender.try_send(bytes);
        askers.insert(asker, sender);
        let (network, socket, stop) = (Arc::clone(&network), Arc::clone(&socket), stop.clone());
        shoal_link::tasks::spawn_connection("node port datagrams", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = carry(network, socket, door, asker, own, queue) => {}
            }
        });
    }
}

/// Carries one asker's datagrams and their answers until there are none for a while.
async fn carry(
    network: Arc<Network>,
    socket: Arc<UdpSocket>,
    door: Door,
    asker: SocketAddr,
    mut own: DatagramPort,
    mut queue: mpsc::Receiver<Bytes>,
) {
    let mut chosen: Option<SocketAddr> = None;
    loop {
        let next = async {
            tokio::select! {
                bytes = queue.recv() => (bytes, None),
                answer = own.receive() => (None, answer),
            }
        };
        match tokio::time::timeout(DATAGRAM_FLOW_IDLE, next).await {
            Ok((Some(bytes), _)) => {
                chosen = endpoint(&network, door, chosen);
                if let Some(to) = chosen {
                    network.send_datagram(Datagram { from: own.address(), to, bytes });
                }
            }
            Ok((None, Some(answer))) if Some(answer.from) == chosen => {
                // It is lost if the asker cannot be reached.
                let _ = socket.send_to(&answer.bytes, asker).await;
            }
            // Nobody else was asked.
            Ok((None, Some(_))) => {}
            Ok((None, None)) | Err(_) => return,
        }
    }
}

/// The endpoint that was chosen, as long as it is ready; else another one.
fn endpoint(network: &Network, door: Door, chosen: Option<SocketAddr>) -> Option<SocketAddr> {
    let port = match door {
        Door::NodePort(port) => port,
        Door::Pod(address) => return Some(address),
    };
    let table = network.table();
    let (name, service_port) = table.service_of_node_port(Protocol::Udp, port)?;
    let kept = chosen.filter(|endpoint| is_ready_endpoint(&table, name, service_port.port, *endpoint));
    kept.or_else(|| network.datagram_endpoint(name, service_port.port))
}
