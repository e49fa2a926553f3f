//! TCP of a process whose embedder grants it: its ports are its own, and the embedder says where they really are.
//!
//! A guest that binds port 80 is bound to a free port of this machine's loopback; the embedder is told which one stands for 80. Where a
//! guest connects to is the embedder's decision for each address. All else is wasmtime's own implementation. UDP and name
//! look-ups are not granted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Network, SocketError, SocketResult, TcpSocket};
use wasmtime_wasi::sockets::WasiSocketsCtxView;

/// Where a process's TCP sockets lead.
pub trait Sockets: Send + Sync + 'static {
    /// The guest listens on its `port`, which is `address` on this machine.
    fn listening(&self, port: u16, address: SocketAddr);

    /// The guest listens on its `port` no more.
    fn closed(&self, port: u16);

    /// Where a connection to `address` goes; none refuses it.
    fn connect(&self, address: SocketAddr) -> Option<SocketAddr>;
}

/// The ports that one guest has bound. When it goes, they go.
#[derive(Default)]
pub(crate) struct Ports {
    sockets: Option<Arc<dyn Sockets>>,
    /// By the number of the socket in the guest's table.
    bound: BTreeMap<u32, Bound>,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    /// The address that the guest believes in.
    own: SocketAddr,
    is_listening: bool,
}

impl Ports {
    pub(crate) fn new(sockets: Option<Arc<dyn Sockets>>) -> Self {
        Self { sockets, bound: BTreeMap::new() }
    }

    fn close(&mut self, socket: u32) {
        if let (Some(bound), Some(sockets)) = (self.bound.remove(&socket), &self.sockets)
            && bound.is_listening
        {
            sockets.closed(bound.own.port());
        }
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        while let Some((socket, _)) = self.bound.first_key_value() {
            self.close(*socket);
        }
    }
}

/// Names [`View`] for the linker.
pub(crate) struct OwnPorts;

impl HasData for OwnPorts {
    type Data<'a> = View<'a>;
}

/// wasmtime's sockets, seen through a guest's own ports.
pub(crate) struct View<'a> {
    pub inner: WasiSocketsCtxView<'a>,
    pub ports: &'a mut Ports,
}

type Socket = Resource<TcpSocket>;

/// The same socket once more: the calls below take it by value, and a borrow is all that they need.
fn again(socket: &Socket) -> Socket {
    Resource::new_borrow(socket.rep())
}

impl tcp::Host for View<'_> {}

impl network::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        self.inner.convert_error_code(error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        self.inner.network_error_code(error)
    }
}

impl network::HostNetwork for View<'_> {
    fn drop(&mut self, this: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.inner, this)
    }
}

impl HostTcpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Socket,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        let wanted: SocketAddr = address.into();
        if wanted.port() != 0 && self.ports.bound.values().any(|bound| bound.own.port() == wanted.port()) {
            return Err(ErrorCode::AddressInUse.into());
        }
        let loopback = match wanted.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        self.inner.start_bind(again(&this), network, SocketAddr::new(loopback, 0).into()).await?;
        let real: SocketAddr = HostTcpSocket::local_address(&mut self.inner, again(&this))?.into();
        let port = if wanted.port() == 0 { real.port() } else { wanted.port() };
        self.ports.bound.insert(this.rep(), Bound { own: SocketAddr::new(wanted.ip(), port), is_listening: false });
        Ok(())
    }

    fn finish_bind(&mut self, this: Socket) -> SocketResult<()> {
        self.inner.finish_bind(this)
    }

    fn start_connect(
        &mut self,
        this: Socket,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        let granted = self.ports.sockets.as_ref().and_then(|sockets| sockets.connect(address.into()));
        let Some(granted) = granted else { return Err(ErrorCode::AccessDenied.into()) };
        self.inner.start_connect(this, network, granted.into())
    }

    fn finish_connect(&mut self, this: Socket) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.inner.finish_connect(this)
    }

    async fn start_listen(&mut self, this: Socket) -> SocketResult<()> {
        self.inner.start_listen(again(&this)).await?;
        let real: SocketAddr = HostTcpSocket::local_address(&mut self.inner, again(&this))?.into();
        if let (Some(bound), Some(sockets)) = (self.ports.bound.get_mut(&this.rep()), &self.ports.sockets) {
            bound.is_listening = true;
            sockets.listening(bound.own.port(), real);
        }
        Ok(())
    }

    fn finish_listen(&mut self, this: Socket) -> SocketResult<()> {
        self.inner.finish_listen(this)
    }

    fn accept(&mut self, this: Socket) -> SocketResult<(Socket, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.inner.accept(this)
    }

    fn local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        match self.ports.bound.get(&this.rep()) {
            Some(bound) => Ok(bound.own.into()),
            None => self.inner.local_address(this),
        }
    }

    fn remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        self.inner.remote_address(this)
    }

    fn is_listening(&mut self, this: Socket) -> wasmtime::Result<bool> {
        self.inner.is_listening(this)
    }

    fn address_family(&mut self, this: Socket) -> wasmtime::Result<IpAddressFamily> {
        self.inner.address_family(this)
    }

    fn set_listen_backlog_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.inner.set_listen_backlog_size(this, value)
    }

    fn keep_alive_enabled(&mut self, this: Socket) -> SocketResult<bool> {
        self.inner.keep_alive_enabled(this)
    }

    fn set_keep_alive_enabled(&mut self, this: Socket, value: bool) -> SocketResult<()> {
        self.inner.set_keep_alive_enabled(this, value)
    }

    fn keep_alive_idle_time(&mut self, this: Socket) -> SocketResult<u64> {
        self.inner.keep_alive_idle_time(this)
    }

    fn set_keep_alive_idle_time(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.inner.set_keep_alive_idle_time(this, value)
    }

    fn keep_alive_interval(&mut self, this: Socket) -> SocketResult<u64> {
        self.inner.keep_alive_interval(this)
    }

    fn set_keep_alive_interval(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.inner.set_keep_alive_interval(this, value)
    }

    fn keep_alive_count(&mut self, this: Socket) -> SocketResult<u32> {
        self.inner.keep_alive_count(this)
    }

    fn set_keep_alive_count(&mut self, this: Socket, value: u32) -> SocketResult<()> {
        self.inner.set_keep_alive_count(this, value)
    }

    fn hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        self.inner.hop_limit(this)
    }

    fn set_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.inner.set_hop_limit(this, value)
    }

    fn receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        self.inner.receive_buffer_size(this)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.inner.set_receive_buffer_size(this, value)
    }

    fn send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        self.inner.send_buffer_size(this)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.inner.set_send_buffer_size(this, value)
    }

    fn subscribe(&mut self, this: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        self.inner.subscribe(this)
    }

    fn shutdown(&mut self, this: Socket, how: ShutdownType) -> SocketResult<()> {
        self.inner.shutdown(this, how)
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        self.ports.close(this.rep());
        HostTcpSocket::drop(&mut self.inner, this)
    }
}
