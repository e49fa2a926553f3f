//! A guest's port for datagrams, as the sockets of WASI 0.2 and 0.3 use it.

use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use bytes::Bytes;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};

use super::address;
use super::grant::{Datagram, Datagrams, Sockets};

/// The largest datagram of UDP over IPv4, in bytes.
const LARGEST: usize = 65_507;

/// A port that is open until it is dropped.
pub(super) struct Bound {
    /// Its address, as the guest wrote it, with the port that it got.
    pub written: SocketAddr,
    pub family: IpAddressFamily,
    only_own: bool,
    own: IpAddr,
    port: Box<dyn Datagrams>,
}

impl Bound {
    pub(super) fn new(sockets: &dyn Sockets, family: IpAddressFamily, written: SocketAddr) -> Result<Self, ErrorCode> {
        let own = sockets.address();
        let bind = address::bind(own, family, written)?;
        let port = sockets.bind(bind.written.port())?;
        let mut written = bind.written;
        written.set_port(port.port());
        Ok(Self { written, family, only_own: bind.only_own, own, port })
    }

    /// Where a datagram to an address that the guest wrote really goes.
    pub(super) fn destination(&self, written: SocketAddr) -> Result<SocketAddr, ErrorCode> {
        address::destination(self.own, self.family, written)
    }

    /// The next datagram, of all senders or of one. What others send is lost.
    pub(super) fn poll_receive(&self, only_from: Option<SocketAddr>, context: &mut Context<'_>) -> Poll<Datagram> {
        loop {
            let Poll::Ready(datagram) = self.port.poll_receive(context) else { return Poll::Pending };
            let is_own = !self.only_own || datagram.from.ip() == self.own;
            if is_own && only_from.is_none_or(|only| only == datagram.from) {
                return Poll::Ready(datagram);
            }
        }
    }

    /// Sends a datagram to `to`, or where the socket is connected to, which `to` may only repeat.
    pub(super) fn send(
        &self,
        connected: Option<SocketAddr>,
        to: Option<SocketAddr>,
        bytes: Vec<u8>,
    ) -> Result<(), ErrorCode> {
        let to = match (to, connected) {
            (Some(to), Some(connected)) if to != connected => return Err(ErrorCode::InvalidArgument),
            (to, connected) => to.or(connected).ok_or(ErrorCode::InvalidArgument)?,
        };
        if bytes.len() > LARGEST {
            return Err(ErrorCode::DatagramTooLarge);
        }
        self.port.send(self.destination(to)?, Bytes::from(bytes)).map_err(ErrorCode::from)
    }
}
