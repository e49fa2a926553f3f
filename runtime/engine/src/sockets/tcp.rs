//! wasi:sockets/tcp: listening, connecting, accepting.
//!
//! A socket is a small machine: unbound, bound, then listening or connecting, then connected. The options that only a
//! kernel could honour (keep-alive, buffers, hops) are kept and told again.

use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Network, SocketResult};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::{Pollable, subscribe};

use super::address::{self, Bind};
use super::bindings::wasi::sockets::tcp::{self, HostTcpSocket, ShutdownType};
use super::bindings::wasi::sockets::tcp_create_socket;
use super::grant::{Accepted, ByteStream, Listener, SocketFailure};
use super::options::{TcpOptions, positive};
use super::pending::Pending;
use super::stream::{Reader, Writer, split};
use super::{Place, View};

/// A guest's TCP socket.
pub struct TcpSocket {
    family: IpAddressFamily,
    state: State,
    options: TcpOptions,
    _place: Place,
}

enum State {
    Unbound,
    Binding(Bind),
    Bound(Bind),
    Connecting { local: SocketAddr, remote: SocketAddr, connected: Pending<Result<ByteStream, SocketFailure>> },
    Connected { local: SocketAddr, remote: SocketAddr, reader: Reader, writer: Writer },
    Listening { bind: Bind, listener: Box<dyn Listener>, waiting: Option<Accepted>, is_finished: bool },
    Closed,
}

impl TcpSocket {
    fn new(family: IpAddressFamily, state: State, place: Place) -> Self {
        Self { family, state, options: TcpOptions::default(), _place: place }
    }

    /// The port that it is bound to.
    pub(super) fn bound_port(&self) -> Option<u16> {
        match &self.state {
            State::Binding(bind) | State::Bound(bind) | State::Listening { bind, .. } => Some(bind.written.port()),
            State::Unbound | State::Connecting { .. } | State::Connected { .. } | State::Closed => None,
        }
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let State::Listening { listener, waiting, is_finished: true, .. } = &mut self.state
            && waiting.is_none()
        {
            match listener.poll_accept(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(accepted)) => *waiting = Some(accepted),
                Poll::Ready(None) => self.state = State::Closed,
            }
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        match &mut self.state {
            State::Connecting { connected, .. } => connected.ready().await,
            State::Listening { .. } => std::future::poll_fn(|context| self.poll_accept(context)).await,
            State::Unbound | State::Binding(_) | State::Bound(_) | State::Connected { .. } | State::Closed => {}
        }
    }
}

type Socket = Resource<TcpSocket>;
type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);

impl View<'_> {
    fn tcp(&mut self, this: &Socket) -> SocketResult<&mut TcpSocket> {
        Ok(self.table.get_mut(this)?)
    }

    fn options_of(&mut self, this: &Socket) -> SocketResult<&mut TcpOptions> {
        Ok(&mut self.tcp(this)?.options)
    }

    /// The two streams of a connection, below their socket.
    fn push_streams(&mut self, this: &Socket, reader: Reader, writer: Writer) -> SocketResult<Streams> {
        let input: DynInputStream = Box::new(reader);
        let output: DynOutputStream = Box::new(writer);
        Ok((self.table.push_child(input, this)?, self.table.push_child(output, this)?))
    }
}

impl tcp::Host for View<'_> {}

impl tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Socket> {
        self.sockets()?;
        let place = self.own.stream_place().ok_or(ErrorCode::NewSocketLimit)?;
        Ok(self.table.push(TcpSocket::new(family, State::Unbound, place))?)
    }
}

impl HostTcpSocket for View<'_> {
    fn start_bind(&mut self, this: Socket, _: Resource<Network>, address: IpSocketAddress) -> SocketResult<()> {
        let own = self.sockets()?.address();
        let socket = self.tcp(&this)?;
        if !matches!(socket.state, State::Unbound) {
            return Err(ErrorCode::InvalidState.into());
        }
        let bind = address::bind(own, socket.family, address.into())?;
        let bind = self.settle_port(bind)?;
        self.tcp(&this)?.state = State::Binding(bind);
        Ok(())
    }

    fn finish_bind(&mut self, this: Socket) -> SocketResult<()> {
        let socket = self.tcp(&this)?;
        let State::Binding(bind) = socket.state else { return Err(ErrorCode::NotInProgress.into()) };
        socket.state = State::Bound(bind);
        Ok(())
    }

    fn start_connect(&mut self, this: Socket, _: Resource<Network>, address: IpSocketAddress) -> SocketResult<()> {
        let sockets = self.sockets()?;
        let port = self.own.ephemeral.next();
        let socket = self.tcp(&this)?;
        let port = match &socket.state {
            State::Unbound => port,
            State::Bound(bind) => bind.written.port(),
            State::Binding(_) | State::Connecting { .. } => return Err(ErrorCode::ConcurrencyConflict.into()),
            State::Connected { .. } | State::Listening { .. } | State::Closed => {
                return Err(ErrorCode::InvalidState.into());
            }
        };
        let remote = address.into();
        let to = address::destination(sockets.address(), socket.family, remote)?;
        let connected = Pending::spawn(sockets.connect(port, to));
        let local = address::seen(socket.family, SocketAddr::new(sockets.address(), port));
        socket.state = State::Connecting { local, remote, connected };
        Ok(())
    }

    fn finish_connect(&mut self, this: Socket) -> SocketResult<Streams> {
        let socket = self.tcp(&this)?;
        let State::Connecting { local, remote, connected } = &mut socket.state else {
            return Err(ErrorCode::NotInProgress.into());
        };
        let (local, remote) = (*local, *remote);
        let Poll::Ready(connected) = connected.take() else { return Err(ErrorCode::WouldBlock.into()) };
        socket.state = State::Closed;
        let stream = connected.ok_or(ErrorCode::Unknown)?.map_err(ErrorCode::from)?;
        let (reader, writer) = split(stream);
        socket.state = State::Connected { local, remote, reader: reader.clone(), writer: writer.clone() };
        self.push_streams(&this, reader, writer)
    }

    fn start_listen(&mut self, this: Socket) -> SocketResult<()> {
        let sockets = self.sockets()?;
        let socket = self.tcp(&this)?;
        let State::Bound(bind) = socket.state else { return Err(ErrorCode::InvalidState.into()) };
        let listener = sockets.listen(bind.written.port(), bind.only_own).map_err(ErrorCode::from)?;
        socket.state = State::Listening { bind, listener, waiting: None, is_finished: false };
        Ok(())
    }

    fn finish_listen(&mut self, this: Socket) -> SocketResult<()> {
        match &mut self.tcp(&this)?.state {
            State::Listening { is_finished, .. } if !*is_finished => {
                *is_finished = true;
                Ok(())
            }
            _ => Err(ErrorCode::NotInProgress.into()),
        }
    }

    fn accept(&mut self, this: Socket) -> SocketResult<(Socket, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let own = self.sockets()?.address();
        let place = self.own.stream_place();
        let socket = self.tcp(&this)?;
        if !matches!(socket.state, State::Listening { is_finished: true, .. }) {
            return Err(ErrorCode::InvalidState.into());
        }
        if socket.poll_accept(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock.into());
        }
        let State::Listening { bind, waiting, .. } = &mut socket.state else {
            return Err(ErrorCode::ConnectionAborted.into());
        };
        // Without a place for it, it waits.
        let place = place.ok_or(ErrorCode::NewSocketLimit)?;
        let accepted = waiting.take().ok_or(ErrorCode::WouldBlock)?;
        let family = socket.family;
        let local = address::seen(family, SocketAddr::new(own, bind.written.port()));
        let remote = address::seen(family, accepted.from);
        let (reader, writer) = split(accepted.stream);
        let connected = State::Connected { local, remote, reader: reader.clone(), writer: writer.clone() };
        let mut child = TcpSocket::new(family, connected, place);
        child.options = socket.options;
        let child = self.table.push(child)?;
        let (input, output) = self.push_streams(&child, reader, writer)?;
        Ok((child, input, output))
    }

    fn local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        match &self.tcp(&this)?.state {
            State::Bound(bind) | State::Listening { bind, .. } => Ok(bind.written.into()),
            State::Connecting { local, .. } | State::Connected { local, .. } => Ok((*local).into()),
            State::Unbound | State::Binding(_) | State::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        match &self.tcp(&this)?.state {
            State::Connected { remote, .. } => Ok((*remote).into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, this: Socket) -> wasmtime::Result<bool> {
        Ok(matches!(self.table.get(&this)?.state, State::Listening { is_finished: true, .. }))
    }

    fn address_family(&mut self, this: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family)
    }

    fn set_listen_backlog_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        positive(value, ErrorCode::InvalidArgument)?;
        match &self.tcp(&this)?.state {
            State::Unbound | State::Binding(_) | State::Bound(_) | State::Listening { .. } => Ok(()),
            State::Connecting { .. } | State::Connected { .. } | State::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn keep_alive_enabled(&mut self, this: Socket) -> SocketResult<bool> {
        Ok(self.options_of(&this)?.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Socket, value: bool) -> SocketResult<()> {
        self.options_of(&this)?.keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.options_of(&this)?.idle_nanoseconds)
    }

    fn set_keep_alive_idle_time(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.options_of(&this)?.idle_nanoseconds = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn keep_alive_interval(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.options_of(&this)?.interval_nanoseconds)
    }

    fn set_keep_alive_interval(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.options_of(&this)?.interval_nanoseconds = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn keep_alive_count(&mut self, this: Socket) -> SocketResult<u32> {
        Ok(self.options_of(&this)?.count)
    }

    fn set_keep_alive_count(&mut self, this: Socket, value: u32) -> SocketResult<()> {
        self.options_of(&this)?.count = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        Ok(self.options_of(&this)?.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.options_of(&this)?.hop_limit = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.options_of(&this)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.options_of(&this)?.receive_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.options_of(&this)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.options_of(&this)?.send_buffer = positive(value, ErrorCode::InvalidArgument)?;
        Ok(())
    }

    fn subscribe(&mut self, this: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn shutdown(&mut self, this: Socket, how: ShutdownType) -> SocketResult<()> {
        let State::Connected { reader, writer, .. } = &self.tcp(&this)?.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        if matches!(how, ShutdownType::Receive | ShutdownType::Both) {
            reader.close();
        }
        if matches!(how, ShutdownType::Send | ShutdownType::Both) {
            writer.close();
        }
        Ok(())
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
