//! Datagrams between pods: by a queue on this node, over one stream to each other node.
//!
//! They may be lost, as datagrams may: where a queue is full, where nothing is bound, where a node cannot be reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_link::{Stream, StreamKind};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::forward::Network;
use crate::limits::{DATAGRAM_LINK_IDLE, DATAGRAM_QUEUE};
use crate::table::{Endpoint, Protocol, ServiceName, Table};
use crate::wire::{Datagram, VERSION, read_version};

/// The queues to other nodes, by the node's name.
#[derive(Default)]
pub(crate) struct NodeQueues(Mutex<BTreeMap<String, mpsc::Sender<Datagram>>>);

impl Network {
    /// Sends a datagram to a pod, wherever it runs. It returns at once and says nothing of its fate.
    pub fn send_datagram(self: &Arc<Self>, datagram: Datagram) {
        if self.local().contains(datagram.to.ip()) {
            self.deliver(datagram);
            return;
        }
        let Some(node) = self.table().node_of(datagram.to.ip()).map(str::to_owned) else { return };
        let mut queues = self.node_queues.0.lock().unwrap_or_else(PoisonError::into_inner);
        let datagram = match queues.get(&node) {
            None => datagram,
            Some(queue) => match queue.try_send(datagram) {
                Err(mpsc::error::TrySendError::Closed(datagram)) => datagram,
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
            },
        };
        let (sender, receiver) = mpsc::channel(DATAGRAM_QUEUE);
        // It is empty and has room.
        let _ = sender.try_send(datagram);
        queues.insert(node.clone(), sender);
        shoal_link::tasks::spawn_connection("datagrams to a node", send_to_node(Arc::clone(self), node, receiver));
    }

    /// One of a Service's ready endpoints for datagrams.
    pub fn datagram_endpoint(&self, name: &ServiceName, port: u16) -> Option<SocketAddr> {
        let table = self.table();
        let candidates = self.connection_candidates(table.service_port(name, Protocol::Udp, port)?);
        candidates.first().map(|endpoint| endpoint.address)
    }

    /// Hands a datagram to the pod of this node that it is for.
    fn deliver(&self, datagram: Datagram) {
        if let Some(queue) = self.local().queue(datagram.to) {
            // One that is full loses it.
            let _ = queue.push(datagram);
        }
    }

    /// Takes the datagrams that another node sends until it sends no more.
    pub(crate) async fn take_datagrams(&self, mut stream: Stream) {
        if read_version(&mut stream).await.is_err() {
            return;
        }
        while let Ok(datagram) = Datagram::read(&mut stream).await {
            self.deliver(datagram);
        }
    }
}

/// Whether a Service's port still has this endpoint ready.
pub fn is_ready_endpoint(table: &Table, name: &ServiceName, port: u16, endpoint: SocketAddr) -> bool {
    let port = table.service_port(name, Protocol::Udp, port);
    port.is_some_and(|port| port.endpoints.iter().any(|e| e.ready && e.address == endpoint))
}

async fn send_to_node(network: Arc<Network>, node: String, mut queue: mpsc::Receiver<Datagram>) {
    let Some(first) = queue.recv().await else { return };
    let endpoint = Endpoint { address: first.to, node, ready: true };
    let Ok(connection) = network.node(&endpoint).await else { return };
    // The network may end while its last datagrams are on their way.
    drop(network);
    let Ok(mut stream) = connection.open(StreamKind::DATAGRAMS).await else { return };
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&first.encode());
    while stream.write_all(&bytes).await.is_ok() {
        match tokio::time::timeout(DATAGRAM_LINK_IDLE, queue.recv()).await {
            Ok(Some(datagram)) => bytes = datagram.encode(),
            Ok(None) | Err(_) => return,
        }
    }
}
