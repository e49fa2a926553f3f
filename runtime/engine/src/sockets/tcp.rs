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

use super::View;
use super::address::{self, Bind};
use super::bindings::wasi::sockets::tcp::{self, HostTcpSocket, ShutdownType};
use super::bindings::wasi::sockets::tcp_create_socket;
use super::grant::{Accepted, ByteStream, Listener, SocketFailure};
use super::pending::Pending;
use super::stream::{Reader, Writer, split};

/// A guest's TCP socket.
pub struct TcpSocket {
    family: IpAddressFamily,
    state: State,
    options: Options,
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

/// What a kernel's socket would be told.
#[derive(Debug, Clone, Copy)]
struct Options {
    keep_alive: bool,
    idle_nanoseconds: u64,
    interval_nanoseconds: u64,
    count: u32,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

impl Default for Options {
    /// As Linux has them.
    fn default() -> Self {
        Self {
            keep_alive: false,
            idle_nanoseconds: 7_200_000_000_000,
            interval_nanoseconds: 75_000_000_000,
            count: 9,
            hop_limit: 64,
            receive_buffer: 64 * 1024,
            send_buffer: 64 * 1024,
        }
    }
}

impl TcpSocket {
    fn new(family: IpAddressFamily, state: State) -> Self {
        Self { family, state, options: Options::default() }
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

    fn tcp_options(&mut self, this: &Socket) -> SocketResult<&mut Options> {
        Ok(&mut self.tcp(this)?.options)
    }

    /// The two streams of a connection, below their socket.
    fn push_streams(&mut self, this: &Socket, reader: Reader, writer: Writer) -> SocketResult<Streams> {
        let input: DynInputStream = Box::new(reader);
        let output: DynOutputStream = Box::new(writer);
        Ok((self.table.push_child(input, this)?, self.table.push_child(output, this)?))
    }
}

/// Whether another socket of the guest has the port.
fn is_taken(table: &mut wasmtime::component::ResourceTable, port: u16) -> bool {
    let has = |socket: &TcpSocket| match &socket.state {
        State::Binding(bind) | State::Bound(bind) | State::Listening { bind, .. } => bind.written.port() == port,
        State::Unbound | State::Connecting { .. } | State::Connected { .. } | State::Closed => false,
    };
    table.iter_mut().any(|entry| entry.downcast_ref::<TcpSocket>().is_some_and(has))
}

/// Refuses a value of an option that must be more than nothing.
fn positive<T: PartialEq + Default>(value: T) -> SocketResult<T> {
    if value == T::default() { Err(ErrorCode::InvalidArgument.into()) } else { Ok(value) }
}

impl tcp::Host for View<'_> {}

impl tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Socket> {
        self.sockets()?;
        Ok(self.table.push(TcpSocket::new(family, State::Unbound))?)
    }
}

impl HostTcpSocket for View<'_> {
    fn start_bind(&mut self, this: Socket, _: Resource<Network>, address: IpSocketAddress) -> SocketResult<()> {
        let own = self.sockets()?.address();
        let socket = self.tcp(&this)?;
        if !matches!(socket.state, State::Unbound) {
            return Err(ErrorCode::InvalidState.into());
        }
        let mut bind = address::bind(own, socket.family, address.into())?;
        if bind.written.port() == 0 {
            while bind.written.port() == 0 || is_taken(self.table, bind.written.port()) {
                bind.written.set_port(self.own.ephemeral.next());
            }
        } else if is_taken(self.table, bind.written.port()) {
            return Err(ErrorCode::AddressInUse.into());
        }
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
        let accepted = waiting.take().ok_or(ErrorCode::WouldBlock)?;
        let family = socket.family;
        let local = address::seen(family, SocketAddr::new(own, bind.written.port()));
        let remote = address::seen(family, accepted.from);
        let (reader, writer) = split(accepted.stream);
        let mut child =
            TcpSocket::new(family, State::Connected { local, remote, reader: reader.clone(), writer: writer.clone() });
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
        positive(value)?;
        match &self.tcp(&this)?.state {
            State::Unbound | State::Binding(_) | State::Bound(_) | State::Listening { .. } => Ok(()),
            State::Connecting { .. } | State::Connected { .. } | State::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn keep_alive_enabled(&mut self, this: Socket) -> SocketResult<bool> {
        Ok(self.tcp_options(&this)?.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Socket, value: bool) -> SocketResult<()> {
        self.tcp_options(&this)?.keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_options(&this)?.idle_nanoseconds)
    }

    fn set_keep_alive_idle_time(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_options(&this)?.idle_nanoseconds = positive(value)?;
        Ok(())
    }

    fn keep_alive_interval(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_options(&this)?.interval_nanoseconds)
    }

    fn set_keep_alive_interval(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_options(&this)?.interval_nanoseconds = positive(value)?;
        Ok(())
    }

    fn keep_alive_count(&mut self, this: Socket) -> SocketResult<u32> {
        Ok(self.tcp_options(&this)?.count)
    }

    fn set_keep_alive_count(&mut self, this: Socket, value: u32) -> SocketResult<()> {
        self.tcp_options(&this)?.count = positive(value)?;
        Ok(())
    }

    fn hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        Ok(self.tcp_options(&this)?.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.tcp_options(&this)?.hop_limit = positive(value)?;
        Ok(())
    }

    fn receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_options(&this)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_options(&this)?.receive_buffer = positive(value)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        Ok(self.tcp_options(&this)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.tcp_options(&this)?.send_buffer = positive(value)?;
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
