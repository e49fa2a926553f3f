//! UDP in memory, for real QUIC: datagrams are delayed, lost, doubled and put out of order, and none passes where a way is cut.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Instant, Sleep};

use crate::net::{Net, Way};

/// One datagram in so many is lost.
const LOST: u32 = 100;

/// One in so many comes twice, when there is a lot of telling twice.
const DOUBLED: u32 = 8;

/// The port of every server.
const PORT: u16 = 7000;

/// The address of the server `id`.
pub fn address(id: u64) -> SocketAddr {
    let [high, low] = u16::try_from(id).expect("few servers").to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), PORT))
}

/// The server at `address`.
fn server_at(address: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(address) = address else { return None };
    let [_, _, high, low] = address.ip().octets();
    Some(u64::from(u16::from_be_bytes([high, low])))
}

#[derive(Default)]
struct Arriving {
    /// By the time of arrival, and what was sent first before what was sent later.
    datagrams: BTreeMap<(Instant, u64), (Way, Vec<u8>)>,
    sent: u64,
    waker: Option<Waker>,
}

/// What is on its way to one socket. Clones are the same.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Arriving>>);

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Arriving> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, arrives: Instant, way: Way, bytes: &[u8]) {
        let mut arriving = self.lock();
        arriving.sent += 1;
        let number = arriving.sent;
        arriving.datagrams.insert((arrives, number), (way, bytes.to_vec()));
        if let Some(waker) = arriving.waker.take() {
            waker.wake();
        }
    }
}

/// The socket of one life of one server.
pub struct Socket {
    net: Net,
    own: (u64, u64),
    inbox: Inbox,
    timer: Mutex<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Plugs in a socket for the server `own` in its present life.
    pub fn new(net: &Net, own: u64, life: u64) -> Self {
        let inbox = Inbox::default();
        net.plug_in(own, life, inbox.clone());
        let timer = Mutex::new(Box::pin(tokio::time::sleep_until(Instant::now())));
        Self { net: net.clone(), own: (own, life), inbox, timer }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Socket({:?})", self.own)
    }
}

/// There is always room to send.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some((to, inbox)) = server_at(transmit.destination).and_then(|to| self.net.inbox(to)) else {
            return Ok(());
        };
        let way = Way { from: self.own, to };
        if self.net.is_cut(way) || !self.net.is_alive(way) || self.net.loses(LOST) {
            return Ok(());
        }
        let times = if self.net.doubles(DOUBLED) { 2 } else { 1 };
        for _ in 0..times {
            inbox.put(Instant::now() + self.net.delay(way), way, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut arriving = self.inbox.lock();
            arriving.waker = Some(context.waker().clone());
            let Some((&(arrives, number), _)) = arriving.datagrams.first_key_value() else { return Poll::Pending };
            if arrives <= Instant::now() {
                let Some((way, bytes)) = arriving.datagrams.remove(&(arrives, number)) else { continue };
                let (Some(buffer), Some(meta)) = (buffers.first_mut(), metas.first_mut()) else { return Poll::Pending };
                if self.net.is_cut(way) || !self.net.is_alive(way) || bytes.len() > buffer.len() {
                    continue;
                }
                buffer[..bytes.len()].copy_from_slice(&bytes);
                *meta = RecvMeta::default();
                (meta.addr, meta.len, meta.stride) = (address(way.from.0), bytes.len(), bytes.len());
                return Poll::Ready(Ok(1));
            }
            let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
            timer.as_mut().reset(arrives);
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address(self.own.0))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
