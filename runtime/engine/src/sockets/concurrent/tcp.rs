//! The TCP sockets of wasi:sockets 0.3: listening, connecting, sending and receiving.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{ReadHalf, WriteHalf};
use tokio_util::sync::PollSemaphore;
use wasmtime::component::{Access, Accessor, FutureReader, Resource, StreamReader};
use wasmtime_wasi::p2::bindings::sockets::network;

use super::super::address::{self, Bind};
use super::super::grant::{Accepted, ByteStream, SocketFailure};
use super::super::options::{TcpOptions, positive};
use super::super::{OwnSockets, Place, View};
use super::streams::{self, Arriving, Receiving, Sending};
use super::types::{ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress};
use super::{SocketError, SocketResult, find, push};
use crate::host::Host;

/// A guest's TCP socket.
pub struct TcpSocket {
    family: network::IpAddressFamily,
    state: State,
    options: TcpOptions,
    place: Place,
}

enum State {
    Unbound,
    Bound(Bind),
    Connecting {
        local: SocketAddr,
    },
    Connected(Connected),
    /// Its stream of connections has the port.
    Listening(Bind),
    Closed,
}

/// A connection, until the guest takes its directions.
struct Connected {
    local: SocketAddr,
    remote: SocketAddr,
    receiving: Option<ReadHalf<ByteStream>>,
    sending: Option<WriteHalf<ByteStream>>,
}

impl Connected {
    fn new(local: SocketAddr, remote: SocketAddr, stream: ByteStream) -> Self {
        let (receiving, sending) = tokio::io::split(stream);
        Self { local, remote, receiving: Some(receiving), sending: Some(sending) }
    }
}

impl Drop for Connected {
    /// Who receives still, and can never send, has nothing more to say.
    fn drop(&mut self) {
        if let Some(sending) = self.sending.take().filter(|_| self.receiving.is_none()) {
            streams::end(sending, None);
        }
    }
}

impl TcpSocket {
    /// The port that it is bound to.
    pub(crate) fn bound_port(&self) -> Option<u16> {
        match &self.state {
            State::Bound(bind) | State::Listening(bind) => Some(bind.written.port()),
            State::Unbound | State::Connecting { .. } | State::Connected(_) | State::Closed => None,
        }
    }

    fn connected(&self) -> Result<&Connected, ErrorCode> {
        match &self.state {
            State::Connected(connected) => Ok(connected),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    /// What a connected socket sends with, once.
    fn take_sending(&mut self) -> Option<Sending> {
        let State::Connected(connected) = &mut self.state else { return None };
        Some(Sending::new(connected.sending.take()?, Arc::clone(&self.place)))
    }

    /// What a connected socket receives with, once.
    fn take_receiving(&mut self) -> Option<Receiving> {
        let State::Connected(connected) = &mut self.state else { return None };
        Some(Receiving::new(connected.receiving.take()?, Arc::clone(&self.place)))
    }
}

/// What the sockets of a listener's connections have of it.
pub(super) struct Inherited {
    family: network::IpAddressFamily,
    local: SocketAddr,
    options: TcpOptions,
}

impl Inherited {
    pub(super) fn connected(&self, accepted: Accepted, place: Place) -> TcpSocket {
        let remote = address::seen(self.family, accepted.from);
        let connected = Connected::new(self.local, remote, accepted.stream);
        TcpSocket { family: self.family, state: State::Connected(connected), options: self.options, place }
    }
}

type Socket = Resource<TcpSocket>;

impl View<'_> {
    fn tcp_socket(&mut self, this: &Socket) -> SocketResult<&mut TcpSocket> {
        find(self.table, this)
    }

    /// Binds a socket that is unbound to any port.
    fn bind_if_unbound(&mut self, this: &Socket) -> SocketResult<()> {
        let socket = self.tcp_socket(this)?;
        if matches!(socket.state, State::Unbound) {
            let any = Bind { written: address::any(socket.family), only_own: false };
            let bind = self.settle_port(any).map_err(ErrorCode::from)?;
            self.tcp_socket(this)?.state = State::Bound(bind);
        }
        Ok(())
    }

    fn begin_connecting(
        &mut self,
        this: &Socket,
        remote: SocketAddr,
    ) -> SocketResult<BoxFuture<'static, Result<ByteStream, SocketFailure>>> {
        let sockets = self.granted()?;
        let port = self.own.ephemeral.next();
        let socket = self.tcp_socket(this)?;
        let port = match &socket.state {
            State::Unbound => port,
            State::Bound(bind) => bind.written.port(),
            _ => return Err(ErrorCode::InvalidState.into()),
        };
        let to = address::destination(sockets.address(), socket.family, remote).map_err(ErrorCode::from)?;
        let local = address::seen(socket.family, SocketAddr::new(sockets.address(), port));
        socket.state = State::Connecting { local };
        Ok(sockets.connect(port, to))
    }

    fn end_connecting(
        &mut self,
        this: &Socket,
        remote: SocketAddr,
        opened: Result<ByteStream, SocketFailure>,
    ) -> SocketResult<()> {
        let socket = self.tcp_socket(this)?;
        let State::Connecting { local } = socket.state else { return Err(ErrorCode::InvalidState.into()) };
        socket.state = State::Closed;
        let stream = opened.map_err(ErrorCode::from)?;
        socket.state = State::Connected(Connected::new(local, remote, stream));
        Ok(())
    }

    fn begin_listening(&mut self, this: &Socket) -> SocketResult<Arriving> {
        let sockets = self.granted()?;
        self.bind_if_unbound(this)?;
        let places = PollSemaphore::new(Arc::clone(&self.own.stream_places));
        let socket = self.tcp_socket(this)?;
        let State::Bound(bind) = socket.state else { return Err(ErrorCode::InvalidState.into()) };
        let listener = sockets.listen(bind.written.port(), bind.only_own).map_err(ErrorCode::from)?;
        socket.state = State::Listening(bind);
        let local = address::seen(socket.family, SocketAddr::new(sockets.address(), bind.written.port()));
        let inherited = Inherited { family: socket.family, local, options: socket.options };
        Ok(Arriving::new(listener, inherited, places))
    }
}

impl HostTcpSocketWithStore<Host> for OwnSockets {
    async fn connect(store: &Accessor<Host, Self>, this: Socket, remote: IpSocketAddress) -> SocketResult<()> {
        let remote = remote.into();
        let opening = store.with(|mut access| access.get().begin_connecting(&this, remote))?;
        let opened = opening.await;
        store.with(|mut access| access.get().end_connecting(&this, remote, opened))
    }

    fn listen(mut store: Access<'_, Host, Self>, this: Socket) -> SocketResult<StreamReader<Socket>> {
        let arriving = store.get().begin_listening(&this)?;
        StreamReader::new(&mut store, arriving).map_err(SocketError::trap)
    }

    fn send(
        mut store: Access<'_, Host, Self>,
        this: Socket,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Result<(), ErrorCode>>> {
        let sending = store.get().table.get_mut(&this)?.take_sending();
        let Some(mut sending) = sending else {
            data.close(&mut store)?;
            return FutureReader::new(&mut store, invalid_state());
        };
        let outcome = sending.outcome();
        data.pipe(&mut store, sending)?;
        FutureReader::new(&mut store, outcome)
    }

    fn receive(
        mut store: Access<'_, Host, Self>,
        this: Socket,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), ErrorCode>>)> {
        let receiving = store.get().table.get_mut(&this)?.take_receiving();
        let Some(mut receiving) = receiving else {
            let nothing = StreamReader::new(&mut store, std::iter::empty())?;
            return Ok((nothing, FutureReader::new(&mut store, invalid_state())?));
        };
        let outcome = receiving.outcome();
        Ok((StreamReader::new(&mut store, receiving)?, FutureReader::new(&mut store, outcome)?))
    }
}

async fn invalid_state() -> wasmtime::Result<Result<(), ErrorCode>> {
    Ok(Err(ErrorCode::InvalidState))
}

impl HostTcpSocket for View<'_> {
    fn create(&mut self, wanted: IpAddressFamily) -> SocketResult<Socket> {
        self.granted()?;
        let place = self.own.stream_place().ok_or(ErrorCode::OutOfMemory)?;
        let (state, options) = (State::Unbound, TcpOptions::default());
        push(self.table, TcpSocket { family: wanted.into(), state, options, place })
    }

    fn bind(&mut self, this: Socket, local: IpSocketAddress) -> SocketResult<()> {
        let own = self.granted()?.address();
        let socket = self.tcp_socket(&this)?;
        if !matches!(socket.state, State::Unbound) {
            return Err(ErrorCode::InvalidState.into());
        }
        let bind = address::bind(own, socket.family, local.into()).map_err(ErrorCode::from)?;
        let bind = self.settle_port(bind).map_err(ErrorCode::from)?;
        self.tcp_socket(&this)?.state = State::Bound(bind);
        Ok(())
    }

    fn get_local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        match &self.tcp_socket(&this)?.state {
            State::Bound(bind) | State::Listening(bind) => Ok(bind.written.into()),
            State::Connecting { local } => Ok((*local).into()),
            State::Connected(connected) => Ok(connected.local.into()),
            State::Unbound | State::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        Ok(self.tcp_socket(&this)?.connected()?.remote.into())
    }

    fn get_is_listening(&mut self, this: Socket) -> wasmtime::Result<bool> {
        Ok(matches!(self.table.get(&this)?.state, State::Listening(_)))
    }

    fn get_address_family(&mut self, this: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn set_listen_backlog_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        positive(value, ErrorCode::InvalidArgument)?;
        match &self.tcp_socket(&this)?.state {
            State::Unbound | State::Bound(_) | State::Listening(_) => Ok(()),
            State::Connecting { .. } | State::Connected(_) | State::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_keep_alive_enabled(&mut self, this: Socket) -> SocketResult<bool> {
        Ok(self.tcp_socket(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Socket, value: bool) -> SocketResult<()> {
        self.tcp_socket(&this)?.options.keep_alive = value;
        Ok(())
    }

    fn get_keep_alive_idle_time(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_socket(&this)?.options.idle_nanoseconds)
    }

    fn set_keep_alive_idle_time(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_socket(&this)?.options.idle_nanoseconds = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn get_keep_alive_interval(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_socket(&this)?.options.interval_nanoseconds)
    }

    fn set_keep_alive_interval(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_socket(&this)?.options.interval_nanoseconds = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn get_keep_alive_count(&mut self, this: Socket) -> SocketResult<u32> {
        Ok(self.tcp_socket(&this)?.options.count)
    }

    fn set_keep_alive_count(&mut self, this: Socket, value: u32) -> SocketResult<()> {
        self.tcp_socket(&this)?.options.count = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn get_hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        Ok(self.tcp_socket(&this)?.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.tcp_socket(&this)?.options.hop_limit = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_socket(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_socket(&this)?.options.receive_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn get_send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_socket(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_socket(&this)?.options.send_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
