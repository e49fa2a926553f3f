//! wasi:sockets/ip-name-lookup: the embedder knows the names.

use std::net::IpAddr;
use std::task::Poll;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress};
use wasmtime_wasi::p2::{DynPollable, Network, SocketResult};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::{Pollable, subscribe};

use super::View;
use super::bindings::wasi::sockets::ip_name_lookup::{self, HostResolveAddressStream};
use super::grant::SocketFailure;
use super::pending::Pending;

/// The longest name of DNS, with a dot at its end (RFC 1035, section 3.1).
const LONGEST: usize = 254;

/// The addresses of a name, as they are asked for one by one.
pub struct Addresses(Pending<Result<std::vec::IntoIter<IpAddr>, SocketFailure>>);

#[async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {
        self.0.ready().await;
    }
}

/// What a guest asks for.
pub(super) enum Asked {
    /// An address in words, which needs no asking.
    Address(IpAddr),
    Name(String),
}

impl Asked {
    /// None for what is neither.
    pub(super) fn read(name: String) -> Option<Self> {
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        match literal.parse() {
            Ok(address) => Some(Self::Address(address)),
            Err(_) => is_name(&name).then_some(Self::Name(name)),
        }
    }
}

/// Whether this may be a name: letters, digits, hyphens and underscores between dots. One of another script must come as
/// IDNA writes it.
fn is_name(name: &str) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(fits)
    };
    name.len() <= LONGEST && bare.split('.').all(is_label)
}

impl ip_name_lookup::Host for View<'_> {
    fn resolve_addresses(&mut self, _: Resource<Network>, name: String) -> SocketResult<Resource<Addresses>> {
        let sockets = self.sockets()?;
        let found = match Asked::read(name).ok_or(ErrorCode::InvalidArgument)? {
            Asked::Address(address) => Pending::Done(Ok(vec![address].into_iter())),
            Asked::Name(name) => {
                let found = self.look_up(sockets, name);
                Pending::spawn(async move { found.await.map(Vec::into_iter) })
            }
        };
        Ok(self.table.push(Addresses(found))?)
    }
}

impl HostResolveAddressStream for View<'_> {
    fn resolve_next_address(&mut self, this: Resource<Addresses>) -> SocketResult<Option<IpAddress>> {
        match self.table.get_mut(&this)?.0.get() {
            Poll::Pending => Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(None) => Err(ErrorCode::Unknown.into()),
            Poll::Ready(Some(Err(failure))) => Err(ErrorCode::from(*failure).into()),
            Poll::Ready(Some(Ok(addresses))) => Ok(addresses.next().map(Into::into)),
        }
    }

    fn subscribe(&mut self, this: Resource<Addresses>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<Addresses>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_told_from_junk() {
        for name in ["a", "cart.shop.svc.cluster.local.", "_http._tcp.x", "xn--bcher-kva.example"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "a..b", ".a", "a b", "b\u{fc}cher.example", &"a".repeat(64), &"a.".repeat(128)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
