//! wasi:sockets of a guest: its addresses are its pod's, and its embedder says where each connection and datagram goes.
//!
//! Nothing here is a socket of this machine. A connection is a stream of bytes that the embedder hands over, a listener a
//! queue of them; wasmtime's own sockets are not linked. `tcp`, `udp` and `names` are the three interfaces.

mod address;
mod bindings;
mod grant;
mod names;
mod pending;
mod service;
mod stream;
mod tcp;
mod udp;

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode};
use wasmtime_wasi::p2::{Network, SocketError, SocketResult};
use wasmtime_wasi::sockets::{WasiSocketsCtx, WasiSocketsCtxView};

pub(crate) use self::grant::OnlyOutgoing;
pub use self::grant::{Accepted, ByteStream, Datagram, Datagrams, Listener, ReadWrite, SocketFailure, Sockets};
pub(crate) use self::service::Service;

use self::bindings::wasi::sockets as wasi;
use crate::host::Host;

/// What one guest holds of its sockets beside their table.
#[derive(Default)]
pub(crate) struct Own {
    sockets: Option<Arc<dyn Sockets>>,
    ephemeral: address::Ephemeral,
}

impl Own {
    pub(crate) fn new(sockets: Option<Arc<dyn Sockets>>) -> Self {
        Self { sockets, ..Self::default() }
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
