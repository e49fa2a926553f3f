//! wasi:sockets 0.3: what those of 0.2 do, in calls that wait and streams that carry bytes and connections.
//!
//! Nothing is read of a connection before the guest wants it, and nothing is taken of a guest that the connection has no room
//! for, so that the guest's own memory is the buffer. `streams` are those of a connection.

mod bindings;
mod names;
mod streams;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi::p2::bindings::sockets::network;

pub use self::tcp::TcpSocket;
pub use self::udp::UdpSocket;

use self::bindings::wasi::sockets::{ip_name_lookup, types};
use super::grant::{SocketFailure, Sockets};
use super::{OwnSockets, View};
use crate::host::Host;
use types::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress};

/// What a guest is told, or what ends it.
pub(crate) type SocketError = TrappableError<ErrorCode>;
type SocketResult<T> = Result<T, SocketError>;

/// Puts them in place of wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<Host, OwnSockets>(linker, Host::sockets)?;
    ip_name_lookup::add_to_linker::<Host, OwnSockets>(linker, Host::sockets)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl View<'_> {
    /// Who grants sockets; a guest without any is denied every one.
    fn granted(&self) -> Result<Arc<dyn Sockets>, ErrorCode> {
        self.own.sockets.clone().ok_or(ErrorCode::AccessDenied)
    }
}

impl types::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

/// A resource that a guest names. One that it has not would be a fault of the engine, which ends it.
fn find<'a, T: Send + 'static>(table: &'a mut ResourceTable, this: &Resource<T>) -> SocketResult<&'a mut T> {
    table.get_mut(this).map_err(SocketError::trap)
}

fn push<T: Send + 'static>(table: &mut ResourceTable, new: T) -> SocketResult<Resource<T>> {
    table.push(new).map_err(SocketError::trap)
}

impl From<IpAddressFamily> for network::IpAddressFamily {
    fn from(family: IpAddressFamily) -> Self {
        match family {
            IpAddressFamily::Ipv4 => Self::Ipv4,
            IpAddressFamily::Ipv6 => Self::Ipv6,
        }
    }
}

impl From<network::IpAddressFamily> for IpAddressFamily {
    fn from(family: network::IpAddressFamily) -> Self {
        match family {
            network::IpAddressFamily::Ipv4 => Self::Ipv4,
            network::IpAddressFamily::Ipv6 => Self::Ipv6,
        }
    }
}

impl From<network::ErrorCode> for ErrorCode {
    fn from(code: network::ErrorCode) -> Self {
        use network::ErrorCode as Earlier;
        match code {
            Earlier::AccessDenied => Self::AccessDenied,
            Earlier::NotSupported => Self::NotSupported,
            Earlier::InvalidArgument => Self::InvalidArgument,
            Earlier::OutOfMemory | Earlier::NewSocketLimit => Self::OutOfMemory,
            Earlier::Timeout => Self::Timeout,
            Earlier::InvalidState | Earlier::ConcurrencyConflict | Earlier::NotInProgress => Self::InvalidState,
            Earlier::AddressNotBindable => Self::AddressNotBindable,
            Earlier::AddressInUse => Self::AddressInUse,
            Earlier::RemoteUnreachable => Self::RemoteUnreachable,
            Earlier::ConnectionRefused => Self::ConnectionRefused,
            Earlier::ConnectionReset => Self::ConnectionReset,
            Earlier::ConnectionAborted => Self::ConnectionAborted,
            Earlier::DatagramTooLarge => Self::DatagramTooLarge,
            Earlier::Unknown
            | Earlier::WouldBlock
            | Earlier::NameUnresolvable
            | Earlier::TemporaryResolverFailure
            | Earlier::PermanentResolverFailure => Self::Other(None),
        }
    }
}

impl From<SocketFailure> for ErrorCode {
    fn from(failure: SocketFailure) -> Self {
        network::ErrorCode::from(failure).into()
    }
}

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::Ipv4(v4.octets().into()),
            IpAddr::V6(v6) => Self::Ipv6(v6.segments().into()),
        }
    }
}

impl From<SocketAddr> for IpSocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::Ipv4(Ipv4SocketAddress { port: v4.port(), address: v4.ip().octets().into() }),
            SocketAddr::V6(v6) => Self::Ipv6(Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                address: v6.ip().segments().into(),
                scope_id: v6.scope_id(),
            }),
        }
    }
}

impl From<IpSocketAddress> for SocketAddr {
    fn from(address: IpSocketAddress) -> Self {
        match address {
            IpSocketAddress::Ipv4(v4) => SocketAddr::from((<[u8; 4]>::from(v4.address), v4.port)),
            IpSocketAddress::Ipv6(v6) => SocketAddr::from((<[u16; 8]>::from(v6.address), v6.port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was() {
        for text in ["10.64.0.2:80", "[2001:db8::1:2]:53"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(SocketAddr::from(IpSocketAddress::from(address)), address);
        }
    }
}
