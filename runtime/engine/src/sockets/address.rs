//! The addresses that a guest believes in. Pure.
//!
//! A guest has one address, its pod's, and a loopback that is its pod's alone. A socket of IPv6 sees IPv4 addresses mapped
//! (`::ffff:10.64.0.2`), so that a program which listens on `[::]` only is reached too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};

/// The ports that a guest's outgoing connections have.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Gives out ports one after another. Two connections may have the same one: nothing tells them apart by it.
#[derive(Debug, Default)]
pub(crate) struct Ephemeral(u16);

impl Ephemeral {
    /// How many there are.
    pub(crate) const COUNT: u16 = *EPHEMERAL.end() - *EPHEMERAL.start() + 1;

    pub(crate) fn next(&mut self) -> u16 {
        let port = EPHEMERAL.start() + self.0;
        self.0 = (self.0 + 1) % Self::COUNT;
        port
    }
}

/// What a guest binds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bind {
    /// The address as the guest wrote it.
    pub written: SocketAddr,
    /// Whether it is the loopback, which only the pod itself reaches.
    pub only_own: bool,
}

/// Reads the address of a `bind`: any, the loopback, or the guest's own.
pub(crate) fn bind(own: IpAddr, family: IpAddressFamily, written: SocketAddr) -> Result<Bind, ErrorCode> {
    if !is_of(family, written.ip()) {
        return Err(ErrorCode::InvalidArgument);
    }
    let ip = written.ip().to_canonical();
    if !ip.is_unspecified() && !ip.is_loopback() && ip != own {
        return Err(ErrorCode::AddressNotBindable);
    }
    // The own address of one that shares its node's may be of the machine's loopback.
    Ok(Bind { written, only_own: ip.is_loopback() && ip != own })
}

/// Where a guest's datagram or connection really goes: its loopback is its own address.
pub(crate) fn destination(own: IpAddr, family: IpAddressFamily, written: SocketAddr) -> Result<SocketAddr, ErrorCode> {
    let ip = written.ip().to_canonical();
    if !is_of(family, written.ip()) || ip.is_unspecified() || ip.is_multicast() || written.port() == 0 {
        return Err(ErrorCode::InvalidArgument);
    }
    if matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Err(ErrorCode::InvalidArgument);
    }
    Ok(SocketAddr::new(if ip.is_loopback() { own } else { ip }, written.port()))
}

/// An address as a socket of this family sees it.
pub(crate) fn seen(family: IpAddressFamily, address: SocketAddr) -> SocketAddr {
    let ip = match (family, address.ip()) {
        (IpAddressFamily::Ipv6, IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
        (_, ip) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Any address of this family, and any port.
pub(crate) fn any(family: IpAddressFamily) -> SocketAddr {
    match family {
        IpAddressFamily::Ipv4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddressFamily::Ipv6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn is_of(family: IpAddressFamily, ip: IpAddr) -> bool {
    matches!((family, ip), (IpAddressFamily::Ipv4, IpAddr::V4(_)) | (IpAddressFamily::Ipv6, IpAddr::V6(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 2));

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_guest_binds_to_its_own_addresses_only() {
        for (family, written, wanted) in [
            (IpAddressFamily::Ipv4, "0.0.0.0:80", Ok(false)),
            (IpAddressFamily::Ipv6, "[::]:80", Ok(false)),
            (IpAddressFamily::Ipv4, "10.64.0.2:80", Ok(false)),
            (IpAddressFamily::Ipv6, "[::ffff:10.64.0.2]:80", Ok(false)),
            (IpAddressFamily::Ipv4, "127.0.0.1:80", Ok(true)),
            (IpAddressFamily::Ipv6, "[::1]:80", Ok(true)),
            (IpAddressFamily::Ipv4, "10.64.0.3:80", Err(ErrorCode::AddressNotBindable)),
            (IpAddressFamily::Ipv6, "0.0.0.0:80", Err(ErrorCode::InvalidArgument)),
        ] {
            let bound = bind(OWN, family, address(written)).map(|bind| bind.only_own);
            assert_eq!(format!("{bound:?}"), format!("{wanted:?}"), "{written}");
        }
        let of_node = address("127.0.1.9:80");
        let bound = bind(of_node.ip(), IpAddressFamily::Ipv4, of_node).map(|bind| bind.only_own);
        assert!(matches!(bound, Ok(false)));
    }

    #[test]
    fn a_guest_s_loopback_is_its_pod() {
        for (family, written, wanted) in [
            (IpAddressFamily::Ipv4, "127.0.0.1:80", Some("10.64.0.2:80")),
            (IpAddressFamily::Ipv6, "[::1]:80", Some("10.64.0.2:80")),
            (IpAddressFamily::Ipv4, "192.0.2.1:80", Some("192.0.2.1:80")),
            (IpAddressFamily::Ipv6, "[::ffff:192.0.2.1]:80", Some("192.0.2.1:80")),
            (IpAddressFamily::Ipv6, "[2001:db8::1]:80", Some("[2001:db8::1]:80")),
            (IpAddressFamily::Ipv4, "192.0.2.1:0", None),
            (IpAddressFamily::Ipv4, "0.0.0.0:80", None),
            (IpAddressFamily::Ipv4, "224.0.0.1:80", None),
            (IpAddressFamily::Ipv4, "255.255.255.255:80", None),
            (IpAddressFamily::Ipv4, "[::1]:80", None),
        ] {
            assert_eq!(destination(OWN, family, address(written)).ok(), wanted.map(address), "{written}");
        }
    }

    #[test]
    fn a_socket_of_ipv6_sees_ipv4_mapped() {
        assert_eq!(seen(IpAddressFamily::Ipv6, address("10.64.0.3:80")), address("[::ffff:10.64.0.3]:80"));
        assert_eq!(seen(IpAddressFamily::Ipv4, address("10.64.0.3:80")), address("10.64.0.3:80"));
    }

    #[test]
    fn ports_come_round() {
        let mut ports = Ephemeral::default();
        let first = ports.next();
        let round: Vec<u16> = (0..Ephemeral::COUNT).map(|_| ports.next()).collect();
        assert!(round.iter().all(|port| EPHEMERAL.contains(port)));
        assert_eq!(round.last(), Some(&first));
    }
}
