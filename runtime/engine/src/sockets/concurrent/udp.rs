//! The UDP sockets of wasi:sockets 0.3.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Mutex;
use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::p2::bindings::sockets::network;

use super::super::address;
use super::super::datagrams::Bound;
use super::super::grant::Datagram;
use super::super::options::{UdpOptions, positive};
use super::super::{OwnSockets, Place, View};
use super::types::{ErrorCode, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress};
use super::{SocketResult, find, push};
use crate::host::Host;

/// A guest's UDP socket.
pub struct UdpSocket {
    family: network::IpAddressFamily,
    bound: Option<Arc<Bound>>,
    remote: Option<SocketAddr>,
    /// Who of those that wait for a datagram has the next one: a port wakes one alone.
    turn: Arc<Mutex<()>>,
    options: UdpOptions,
    _place: Place,
}

type Socket = Resource<UdpSocket>;

impl View<'_> {
    fn udp_socket(&mut self, this: &Socket) -> SocketResult<&mut UdpSocket> {
        find(self.table, this)
    }

    /// The port of a socket; any if it has none yet.
    fn port_of(&mut self, this: &Socket) -> SocketResult<Arc<Bound>> {
        let sockets = self.granted()?;
        let socket = self.udp_socket(this)?;
        if let Some(bound) = &socket.bound {
            return Ok(Arc::clone(bound));
        }
        let any = address::any(socket.family);
        let bound = Bound::new(sockets.as_ref(), socket.family, any).map_err(ErrorCode::from)?;
        Ok(Arc::clone(socket.bound.insert(Arc::new(bound))))
    }

    fn send_datagram(&mut self, this: &Socket, bytes: Vec<u8>, to: Option<IpSocketAddress>) -> SocketResult<()> {
        let bound = self.port_of(this)?;
        let remote = self.udp_socket(this)?.remote;
        Ok(bound.send(remote, to.map(SocketAddr::from), bytes).map_err(ErrorCode::from)?)
    }
}

impl HostUdpSocketWithStore<Host> for OwnSockets {
    async fn send(
        store: &Accessor<Host, Self>,
        this: Socket,
        data: Vec<u8>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        // What there is no room for is lost, so that nobody waits.
        store.with(|mut access| access.get().send_datagram(&this, data, remote))
    }

    async fn receive(store: &Accessor<Host, Self>, this: Socket) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let (bound, only_from, turn) = store.with(|mut access| {
            let mut view = access.get();
            let socket = view.udp_socket(&this)?;
            let bound = socket.bound.clone().ok_or(ErrorCode::InvalidState)?;
            let only_from = socket.remote.map(|remote| bound.destination(remote)).transpose();
            SocketResult::Ok((bound, only_from.map_err(ErrorCode::from)?, Arc::clone(&socket.turn)))
        })?;
        let _turn = turn.lock().await;
        let received = std::future::poll_fn(|context| bound.poll_receive(only_from, context)).await;
        let Datagram { from, bytes } = received;
        Ok((bytes.into(), address::seen(bound.family, from).into()))
    }
}

impl HostUdpSocket for View<'_> {
    fn create(&mut self, wanted: IpAddressFamily) -> SocketResult<Socket> {
        self.granted()?;
        let socket = UdpSocket {
            family: wanted.into(),
            bound: None,
            remote: None,
            turn: Arc::default(),
            options: UdpOptions::default(),
            _place: self.own.datagram_place().ok_or(ErrorCode::OutOfMemory)?,
        };
        push(self.table, socket)
    }

    fn bind(&mut self, this: Socket, local: IpSocketAddress) -> SocketResult<()> {
        let sockets = self.granted()?;
        let socket = self.udp_socket(&this)?;
        if socket.bound.is_some() {
            return Err(ErrorCode::InvalidState.into());
        }
        let bound = Bound::new(sockets.as_ref(), socket.family, local.into()).map_err(ErrorCode::from)?;
        socket.bound = Some(Arc::new(bound));
        Ok(())
    }

    fn connect(&mut self, this: Socket, remote: IpSocketAddress) -> SocketResult<()> {
        let bound = self.port_of(&this)?;
        let remote = SocketAddr::from(remote);
        bound.destination(remote).map_err(ErrorCode::from)?;
        self.udp_socket(&this)?.remote = Some(remote);
        Ok(())
    }

    fn disconnect(&mut self, this: Socket) -> SocketResult<()> {
        let was_connected = self.udp_socket(&this)?.remote.take().is_some();
        if was_connected { Ok(()) } else { Err(ErrorCode::InvalidState.into()) }
    }

    fn get_local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let bound = self.udp_socket(&this)?.bound.as_ref().ok_or(ErrorCode::InvalidState)?;
        Ok(bound.written.into())
    }

    fn get_remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        Ok(self.udp_socket(&this)?.remote.ok_or(ErrorCode::InvalidState)?.into())
    }

    fn get_address_family(&mut self, this: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn get_unicast_hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        Ok(self.udp_socket(&this)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.udp_socket(&this)?.options.hop_limit = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.udp_socket(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.udp_socket(&this)?.options.receive_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn get_send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.udp_socket(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.udp_socket(&this)?.options.send_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
