//! wasi:sockets/udp: a port for datagrams, and the two streams of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::{DynPollable, Network, SocketError, SocketResult};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::{Pollable, subscribe};

use super::address;
use super::bindings::wasi::sockets::udp::{
    self, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram, OutgoingDatagram,
};
use super::bindings::wasi::sockets::udp_create_socket;
use super::datagrams::Bound;
use super::grant::Datagram;
use super::options::{UdpOptions, positive};
use super::{Place, View};

/// How many datagrams one call takes or gives.
const AT_ONCE: usize = 16;

/// A guest's UDP socket.
pub struct UdpSocket {
    family: IpAddressFamily,
    bound: Option<Arc<Bound>>,
    is_finished: bool,
    remote: Option<SocketAddr>,
    options: UdpOptions,
    _place: Place,
}

/// The receiving side of a socket.
pub struct IncomingDatagrams {
    bound: Arc<Bound>,
    /// From whom alone datagrams are taken, if it is connected.
    only_from: Option<SocketAddr>,
    waiting: Option<Datagram>,
}

/// The sending side of a socket.
pub struct OutgoingDatagrams {
    bound: Arc<Bound>,
    remote: Option<SocketAddr>,
    permitted: usize,
}

impl IncomingDatagrams {
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            let Poll::Ready(datagram) = self.bound.poll_receive(self.only_from, context) else { return Poll::Pending };
            self.waiting = Some(datagram);
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for UdpSocket {
    /// Nothing that a socket itself does takes time.
    async fn ready(&mut self) {}
}

#[async_trait]
impl Pollable for IncomingDatagrams {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll_fill(context)).await;
    }
}

#[async_trait]
impl Pollable for OutgoingDatagrams {
    /// What there is no room for is lost, so that there is always room.
    async fn ready(&mut self) {}
}

type Socket = Resource<UdpSocket>;

impl View<'_> {
    fn udp(&mut self, this: &Socket) -> SocketResult<&mut UdpSocket> {
        Ok(self.table.get_mut(this)?)
    }
}

impl udp::Host for View<'_> {}

impl udp_create_socket::Host for View<'_> {
    fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Socket> {
        self.sockets()?;
        let socket = UdpSocket {
            family,
            bound: None,
            is_finished: false,
            remote: None,
            options: UdpOptions::default(),
            _place: self.own.datagram_place().ok_or(ErrorCode::NewSocketLimit)?,
        };
        Ok(self.table.push(socket)?)
    }
}

impl HostUdpSocket for View<'_> {
    fn start_bind(&mut self, this: Socket, _: Resource<Network>, address: IpSocketAddress) -> SocketResult<()> {
        let sockets = self.sockets()?;
        let socket = self.udp(&this)?;
        if socket.bound.is_some() {
            return Err(ErrorCode::InvalidState.into());
        }
        let bound = Bound::new(sockets.as_ref(), socket.family, address.into())?;
        socket.bound = Some(Arc::new(bound));
        Ok(())
    }

    fn finish_bind(&mut self, this: Socket) -> SocketResult<()> {
        let socket = self.udp(&this)?;
        if socket.bound.is_none() || socket.is_finished {
            return Err(ErrorCode::NotInProgress.into());
        }
        socket.is_finished = true;
        Ok(())
    }

    fn stream(
        &mut self,
        this: Socket,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagrams>, Resource<OutgoingDatagrams>)> {
        // Its pollables are its children too.
        let is_stream =
            |child: &(dyn std::any::Any + Send)| child.is::<IncomingDatagrams>() || child.is::<OutgoingDatagrams>();
        let has_streams = self.table.iter_children(&this)?.any(is_stream);
        if has_streams {
            return Err(SocketError::trap(wasmtime::format_err!("the socket's streams are not dropped yet")));
        }
        let socket = self.udp(&this)?;
        let Some(bound) = socket.bound.clone().filter(|_| socket.is_finished) else {
            return Err(ErrorCode::InvalidState.into());
        };
        let remote: Option<SocketAddr> = remote.map(Into::into);
        let only_from = remote.map(|remote| bound.destination(remote)).transpose()?;
        socket.remote = remote;
        let incoming = IncomingDatagrams { bound: bound.clone(), only_from, waiting: None };
        let outgoing = OutgoingDatagrams { bound, remote, permitted: 0 };
        Ok((self.table.push_child(incoming, &this)?, self.table.push_child(outgoing, &this)?))
    }

    fn local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let bound = self.udp(&this)?.bound.as_ref().ok_or(ErrorCode::InvalidState)?;
        Ok(bound.written.into())
    }

    fn remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        Ok(self.udp(&this)?.remote.ok_or(ErrorCode::InvalidState)?.into())
    }

    fn address_family(&mut self, this: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family)
    }

    fn unicast_hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        Ok(self.udp(&this)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.udp(&this)?.options.hop_limit = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.udp(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.udp(&this)?.options.receive_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.udp(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.udp(&this)?.options.send_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn subscribe(&mut self, this: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl HostIncomingDatagramStream for View<'_> {
    fn receive(&mut self, this: Resource<IncomingDatagrams>, most: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let stream = self.table.get_mut(&this)?;
        let most = usize::try_from(most).unwrap_or(AT_ONCE).min(AT_ONCE);
        let mut received = Vec::new();
        while received.len() < most && stream.poll_fill(&mut Context::from_waker(Waker::noop())).is_ready() {
            let Some(Datagram { from, bytes }) = stream.waiting.take() else { break };
            let remote_address = address::seen(stream.bound.family, from).into();
            received.push(IncomingDatagram { data: bytes.into(), remote_address });
        }
        Ok(received)
    }

    fn subscribe(&mut self, this: Resource<IncomingDatagrams>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<IncomingDatagrams>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl HostOutgoingDatagramStream for View<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagrams>) -> SocketResult<u64> {
        self.table.get_mut(&this)?.permitted = AT_ONCE;
        Ok(AT_ONCE as u64)
    }

    fn send(&mut self, this: Resource<OutgoingDatagrams>, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let stream = self.table.get_mut(&this)?;
        if datagrams.is_empty() {
            return Ok(0);
        }
        if datagrams.len() > std::mem::take(&mut stream.permitted) {
            return Err(SocketError::trap(wasmtime::format_err!("more datagrams were sent than are permitted")));
        }
        let mut sent = 0;
        for datagram in datagrams {
            let to = datagram.remote_address.map(SocketAddr::from);
            match stream.bound.send(stream.remote, to, datagram.data) {
                Ok(()) => sent += 1,
                // What was sent is told; the next call tells of the failure.
                Err(_) if sent > 0 => break,
                Err(code) => return Err(code.into()),
            }
        }
        Ok(sent)
    }

    fn subscribe(&mut self, this: Resource<OutgoingDatagrams>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<OutgoingDatagrams>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
