//! A process's ends of the network: a queue of connections, and a queue of datagrams.

use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::limits::{BACKLOG, DATAGRAM_QUEUE, PIPE_BYTES};
use crate::local::LocalPods;
use crate::wire::Datagram;

/// Both directions of a connection.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// A connection, whatever carries it. Shutting it down ends the sending direction only.
pub type ByteStream = Box<dyn ReadWrite>;

/// A connection that a process is to accept.
pub struct Incoming {
    /// The connection.
    pub stream: ByteStream,
    /// Who opened it.
    pub from: SocketAddr,
    /// The pod's address that was asked for.
    pub to: SocketAddr,
}

/// What the network holds of a process that takes connections.
#[derive(Clone)]
pub struct ProcessPort {
    queue: mpsc::Sender<Incoming>,
    only_from: Option<IpAddr>,
}

impl ProcessPort {
    /// Opens a connection: it is there when it stands in the process's queue, as with a kernel's.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self, from: SocketAddr, to: SocketAddr, patience: Duration) -> Result<ByteStream, String> {
        if self.only_from.is_some_and(|own| own != from.ip()) {
            return Err(format!("{to} takes connections of its own pod only"));
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let incoming = Incoming { stream: Box::new(theirs), from, to };
        match tokio::time::timeout(patience, self.queue.send(incoming)).await {
            Ok(Ok(())) => Ok(Box::new(ours)),
            Ok(Err(_)) => Err(format!("nothing listens at {to}")),
            Err(_) => Err(format!("{to} accepted nothing for {patience:?}")),
        }
    }

    pub(crate) fn is_same(&self, other: &ProcessPort) -> bool {
        self.queue.same_channel(&other.queue)
    }
}

/// The connections to a port of a process. Dropping it closes the port.
pub struct StreamPort {
    pods: LocalPods,
    address: SocketAddr,
    queue: mpsc::Receiver<Incoming>,
    own: ProcessPort,
}

impl StreamPort {
    pub(crate) fn new(pods: LocalPods, address: SocketAddr, only_own: bool) -> (StreamPort, ProcessPort) {
        let (sender, queue) = mpsc::channel(BACKLOG);
        let own = ProcessPort { queue: sender, only_from: only_own.then_some(address.ip()) };
        (StreamPort { pods, address, queue, own: own.clone() }, own)
    }

    /// The next connection; none when there will be none any more.
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.queue.poll_recv(context)
    }
}

impl Drop for StreamPort {
    fn drop(&mut self) {
        self.pods.close_streams(self.address, &self.own);
    }
}

/// What the network holds of a process that takes datagrams.
#[derive(Clone)]
pub(crate) struct DatagramQueue(mpsc::Sender<Datagram>);

impl DatagramQueue {
    /// Hands a datagram over; false if it is lost, as one may be.
    pub(crate) fn push(&self, datagram: Datagram) -> bool {
        match self.0.try_send(datagram) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
        }
    }

    pub(crate) fn is_same(&self, other: &DatagramQueue) -> bool {
        self.0.same_channel(&other.0)
    }
}

/// The datagrams to a port. Dropping it closes the port.
pub struct DatagramPort {
    pods: LocalPods,
    pub(crate) address: SocketAddr,
    queue: mpsc::Receiver<Datagram>,
    own: DatagramQueue,
}

impl DatagramPort {
    pub(crate) fn new(pods: LocalPods, address: SocketAddr) -> (DatagramPort, DatagramQueue) {
        let (sender, queue) = mpsc::channel(DATAGRAM_QUEUE);
        let own = DatagramQueue(sender);
        (DatagramPort { pods, address, queue, own: own.clone() }, own)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next datagram; none when there will be none any more. It never ends while the port lives.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Datagram>> {
        self.queue.poll_recv(context)
    }

    /// As [`DatagramPort::poll_receive`]. Cancel safe.
    pub async fn receive(&mut self) -> Option<Datagram> {
        self.queue.recv().await
    }

    /// Puts what came another way, such as from outside, among the datagrams to this port.
    pub fn inlet(&self) -> Inlet {
        Inlet(self.own.clone())
    }
}

impl Drop for DatagramPort {
    fn drop(&mut self) {
        self.pods.unbind(self.address, &self.own);
    }
}

/// Another way into a port's queue.
#[derive(Clone)]
pub struct Inlet(DatagramQueue);

impl Inlet {
    /// Hands a datagram over; false if it is lost, as one may be.
    pub fn push(&self, datagram: Datagram) -> bool {
        self.0.push(datagram)
    }
}
