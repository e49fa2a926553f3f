//! wasi:sockets of a guest: its addresses are its pod's, and its embedder says where each connection and datagram goes.
//!
//! Nothing here is a socket of this machine. A connection is a stream of bytes that the embedder hands over, a listener a
//! queue of them; wasmtime's own sockets are not linked. `tcp`, `udp` and `names` are the three interfaces of WASI 0.2,
//! `concurrent` are those of 0.3.

mod address;
mod bindings;
pub(crate) mod concurrent;
mod datagrams;
mod grant;
mod limits;
mod names;
mod options;
mod pending;
mod service;
mod stream;
mod tcp;
mod udp;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode};
use wasmtime_wasi::p2::{Network, SocketError, SocketResult};
use wasmtime_wasi::sockets::{WasiSocketsCtx, WasiSocketsCtxView};

pub(crate) use self::grant::OnlyOutgoing;
pub use self::grant::{Accepted, ByteStream, Datagram, Datagrams, Listener, ReadWrite, SocketFailure, Sockets};
pub(crate) use self::service::Service;

use self::address::{Bind, Ephemeral};
use self::bindings::wasi::sockets as wasi;
use crate::host::Host;

/// What one guest holds of its sockets beside their table.
pub(crate) struct Own {
    sockets: Option<Arc<dyn Sockets>>,
    ephemeral: Ephemeral,
    stream_places: Arc<Semaphore>,
    datagram_places: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

/// A socket's place among those that a guest may have. Whatever outlives the socket keeps it.
type Place = Arc<OwnedSemaphorePermit>;

impl Own {
    pub(crate) fn new(sockets: Option<Arc<dyn Sockets>>) -> Self {
        Self {
            sockets,
            ephemeral: Ephemeral::default(),
            stream_places: Arc::new(Semaphore::new(limits::STREAM_SOCKETS)),
            datagram_places: Arc::new(Semaphore::new(limits::DATAGRAM_SOCKETS)),
            lookups: Arc::new(Semaphore::new(limits::LOOKUPS)),
        }
    }

    /// A place for one more TCP socket.
    fn stream_place(&self) -> Option<Place> {
        Arc::clone(&self.stream_places).try_acquire_owned().ok().map(Arc::new)
    }

    /// A place for one more UDP socket.
    fn datagram_place(&self) -> Option<Place> {
        Arc::clone(&self.datagram_places).try_acquire_owned().ok().map(Arc::new)
    }
}

/// Names [`View`] for the linker.
pub(crate) struct OwnSockets;

impl HasData for OwnSockets {
    type Data<'a> = View<'a>;
}

/// A guest's sockets and the table that they are in.
pub(crate) struct View<'a> {
    pub own: &'a mut Own,
    pub table: &'a mut ResourceTable,
    /// wasmtime's, which is granted nothing.
    pub inner: &'a mut WasiSocketsCtx,
}

impl View<'_> {
    fn wasmtime(&mut self) -> WasiSocketsCtxView<'_> {
        WasiSocketsCtxView { ctx: self.inner, table: self.table }
    }

    /// Who grants sockets; a guest without any is denied every one.
    fn sockets(&self) -> SocketResult<Arc<dyn Sockets>> {
        self.own.sockets.clone().ok_or_else(|| ErrorCode::AccessDenied.into())
    }

    /// Gives a TCP socket the port that it asks for, or one that is free if it asks for none.
    fn settle_port(&mut self, mut bind: Bind) -> Result<Bind, ErrorCode> {
        if bind.written.port() != 0 {
            return if self.is_taken(bind.written.port()) { Err(ErrorCode::AddressInUse) } else { Ok(bind) };
        }
        for _ in 0..Ephemeral::COUNT {
            bind.written.set_port(self.own.ephemeral.next());
            if !self.is_taken(bind.written.port()) {
                return Ok(bind);
            }
        }
        Err(ErrorCode::AddressInUse)
    }

    /// Whether a TCP socket of the guest has the port.
    fn is_taken(&mut self, port: u16) -> bool {
        self.table.iter_mut().any(|entry| {
            let bound = match entry.downcast_ref::<tcp::TcpSocket>() {
                Some(socket) => socket.bound_port(),
                None => entry.downcast_ref::<concurrent::TcpSocket>().and_then(concurrent::TcpSocket::bound_port),
            };
            bound == Some(port)
        })
    }

    /// Asks for the addresses of a name, a few names at once.
    fn look_up(
        &self,
        sockets: Arc<dyn Sockets>,
        name: String,
    ) -> impl Future<Output = Result<Vec<IpAddr>, SocketFailure>> + Send + use<> {
        let turns = Arc::clone(&self.own.lookups);
        async move {
            // Nobody closes the semaphore.
            let _turn = turns.acquire_owned().await;
            sockets.look_up(name).await
        }
    }
}

/// Puts them in place of wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    wasi::tcp::add_to_linker::<Host, OwnSockets>(linker, Host::sockets)?;
    wasi::tcp_create_socket::add_to_linker::<Host, OwnSockets>(linker, Host::sockets)?;
    wasi::udp::add_to_linker::<Host, OwnSockets>(linker, Host::sockets)?;
    wasi::udp_create_socket::add_to_linker::<Host, OwnSockets>(linker, Host::sockets)?;
    wasi::ip_name_lookup::add_to_linker::<Host, OwnSockets>(linker, Host::sockets)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl network::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        self.wasmtime().convert_error_code(error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        self.wasmtime().network_error_code(error)
    }
}

impl network::HostNetwork for View<'_> {
    fn drop(&mut self, this: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.wasmtime(), this)
    }
}
