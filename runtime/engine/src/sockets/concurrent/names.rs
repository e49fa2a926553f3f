//! wasi:sockets/ip-name-lookup 0.3: the embedder knows the names.

use wasmtime::component::Accessor;

use super::super::grant::SocketFailure;
use super::super::names::Asked;
use super::super::{OwnSockets, View};
use super::bindings::wasi::sockets::ip_name_lookup::{ErrorCode, Host as IpNameLookup, HostWithStore};
use super::types::IpAddress;
use crate::host::Host;

impl IpNameLookup for View<'_> {}

impl HostWithStore<Host> for OwnSockets {
    async fn resolve_addresses(
        store: &Accessor<Host, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, ErrorCode>> {
        let Some(asked) = Asked::read(name) else { return Ok(Err(ErrorCode::InvalidArgument)) };
        let looking = store.with(|mut access| {
            let view = access.get();
            let sockets = view.granted().map_err(|_| ErrorCode::AccessDenied)?;
            Ok(match asked {
                Asked::Address(address) => Err(address),
                Asked::Name(name) => Ok(view.look_up(sockets, name)),
            })
        });
        let found = match looking {
            Err(code) => return Ok(Err(code)),
            Ok(Err(address)) => Ok(vec![address]),
            Ok(Ok(looking)) => looking.await,
        };
        Ok(match found {
            Ok(addresses) if addresses.is_empty() => Err(ErrorCode::NameUnresolvable),
            Ok(addresses) => Ok(addresses.into_iter().map(|address| address.to_canonical().into()).collect()),
            Err(failure) => Err(failure.into()),
        })
    }
}

impl From<SocketFailure> for ErrorCode {
    fn from(failure: SocketFailure) -> Self {
        match failure {
            SocketFailure::Denied => Self::AccessDenied,
            SocketFailure::NameUnknown => Self::NameUnresolvable,
            SocketFailure::NoResolver | SocketFailure::Timeout => Self::TemporaryResolverFailure,
            SocketFailure::PortTaken | SocketFailure::Refused | SocketFailure::Unreachable => Self::Other(None),
        }
    }
}
