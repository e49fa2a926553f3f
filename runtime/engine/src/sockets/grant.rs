//! What the embedder of a guest says about its sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;

/// Both directions of a connection.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// A connection. Shutting it down ends the sending direction only.
pub type ByteStream = Box<dyn ReadWrite>;

/// Where a guest's sockets lead.
pub trait Sockets: Send + Sync + 'static {
    /// The guest's own address.
    fn address(&self) -> IpAddr;

    /// The guest takes connections at its `port`; with `only_own`, those from its own address only.
    ///
    /// # Errors
    /// [`SocketFailure`].
    fn listen(&self, port: u16, only_own: bool) -> Result<Box<dyn Listener>, SocketFailure>;

    /// Opens a connection from the guest's port `from`.
    fn connect(&self, from: u16, to: SocketAddr) -> BoxFuture<'static, Result<ByteStream, SocketFailure>>;

    /// The guest sends and takes datagrams at its `port`; 0 is any that is free.
    ///
    /// # Errors
    /// [`SocketFailure`].
    fn bind(&self, port: u16) -> Result<Box<dyn Datagrams>, SocketFailure>;

    /// The addresses of a name; it is no address itself.
    fn look_up(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, SocketFailure>>;
}

/// The connections to a guest's port. Dropping it closes the port.
pub trait Listener: Send + 'static {
    /// The next connection; none when there will be none any more.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Accepted>>;
}

/// A connection that a guest is to accept.
pub struct Accepted {
    /// The connection.
    pub stream: ByteStream,
    /// Who opened it.
    pub from: SocketAddr,
}

/// A guest's port for datagrams. Dropping it closes the port.
pub trait Datagrams: Send + Sync + 'static {
    /// Its number.
    fn port(&self) -> u16;

    /// Sends a datagram; it returns at once and says nothing of its fate, as a socket would.
    ///
    /// # Errors
    /// [`SocketFailure`] for what is lost for sure.
    fn send(&self, to: SocketAddr, bytes: Bytes) -> Result<(), SocketFailure>;

    /// The next datagram.
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Datagram>;
}

/// A datagram that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// What it says.
    pub bytes: Bytes,
}

/// What a guest is told when a socket does not do what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketFailure {
    /// It is not granted.
    #[error("the destination is not allowed")]
    Denied,
    /// Another one has the port.
    #[error("the port is taken")]
    PortTaken,
    /// Nothing listens there.
    #[error("the destination refused the connection")]
    Refused,
    /// There is no way there.
    #[error("the destination cannot be reached")]
    Unreachable,
    /// It did not answer in time.
    #[error("the destination did not answer in time")]
    Timeout,
    /// Nobody has that name.
    #[error("the name has no address")]
    NameUnknown,
    /// Those who know names did not answer.
    #[error("the name cannot be looked up at the moment")]
    NoResolver,
}

impl From<SocketFailure> for ErrorCode {
    fn from(failure: SocketFailure) -> Self {
        match failure {
            SocketFailure::Denied => ErrorCode::AccessDenied,
            SocketFailure::PortTaken => ErrorCode::AddressInUse,
            SocketFailure::Refused => ErrorCode::ConnectionRefused,
            SocketFailure::Unreachable => ErrorCode::RemoteUnreachable,
            SocketFailure::Timeout => ErrorCode::Timeout,
            SocketFailure::NameUnknown => ErrorCode::NameUnresolvable,
            SocketFailure::NoResolver => ErrorCode::TemporaryResolverFailure,
        }
    }
}

/// The sockets of a function: it lives no longer than a request, so that nobody could rely on a port of its own.
pub(crate) struct OnlyOutgoing(pub Arc<dyn Sockets>);

impl Sockets for OnlyOutgoing {
    fn address(&self) -> IpAddr {
        self.0.address()
    }

    fn listen(&self, _port: u16, _only_own: bool) -> Result<Box<dyn Listener>, SocketFailure> {
        Err(SocketFailure::Denied)
    }

    fn connect(&self, from: u16, to: SocketAddr) -> BoxFuture<'static, Result<ByteStream, SocketFailure>> {
        self.0.connect(from, to)
    }

    fn bind(&self, port: u16) -> Result<Box<dyn Datagrams>, SocketFailure> {
        if port == 0 { self.0.bind(0) } else { Err(SocketFailure::Denied) }
    }

    fn look_up(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, SocketFailure>> {
        self.0.look_up(name)
    }
}
