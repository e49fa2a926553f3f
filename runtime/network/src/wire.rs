//! What goes before the bytes of a connection, and around a datagram, on a stream between two nodes.
//!
//! A connection's head, by example: version 1, bytes only, from 10.64.0.2:49152 to 10.64.1.3:80 is
//! `01 01 | 04 0a400002 c000 | 04 0a400103 0050`; one byte answers it. A datagram is its two addresses, a length of two
//! bytes, and its bytes; a stream of them begins with the version.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The version of both.
pub(crate) const VERSION: u8 = 1;

/// Which connections the asking side can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Any; a function speaks HTTP/1.1 on it.
    Any,
    /// Those to a process; of a function it wants to know that it is one.
    Bytes,
}

/// The head of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub wanted: Wanted,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// What the other node says to a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The pod's bytes follow.
    Connected,
    /// A function is there, which takes requests and no bytes.
    Function,
    /// Nothing listens there.
    Refused,
}

/// A datagram of or for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Whom it is for.
    pub to: SocketAddr,
    /// What it says; at most 65,507 bytes.
    pub bytes: Bytes,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(self.wanted == Wanted::Bytes)];
        put_address(&mut bytes, self.from);
        put_address(&mut bytes, self.to);
        bytes
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
        read_version(stream).await?;
        let wanted = match stream.read_u8().await? {
            0 => Wanted::Any,
            1 => Wanted::Bytes,
            other => return Err(damaged(format!("no kind of connection is {other}"))),
        };
        Ok(Head { wanted, from: read_address(stream).await?, to: read_address(stream).await? })
    }
}

impl Reply {
    pub(crate) fn encode(self) -> u8 {
        match self {
            Reply::Connected => 0,
            Reply::Function => 1,
            Reply::Refused => 2,
        }
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Reply> {
        match stream.read_u8().await? {
            0 => Ok(Reply::Connected),
            1 => Ok(Reply::Function),
            2 => Ok(Reply::Refused),
            other => Err(damaged(format!("no reply is {other}"))),
        }
    }
}

impl Datagram {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 40);
        put_address(&mut bytes, self.from);
        put_address(&mut bytes, self.to);
        // A datagram that is longer was refused when it was sent.
        let length = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.bytes[..usize::from(length)]);
        bytes
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Datagram> {
        let (from, to) = (read_address(stream).await?, read_address(stream).await?);
        let mut bytes = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut bytes).await?;
        Ok(Datagram { from, to, bytes: bytes.into() })
    }
}

pub(crate) async fn read_version(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    match stream.read_u8().await? {
        VERSION => Ok(()),
        other => Err(damaged(format!("the other node speaks version {other}, this one {VERSION}"))),
    }
}

fn put_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
    bytes.extend_from_slice(&address.port().to_be_bytes());
}

async fn read_address(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<SocketAddr> {
    let ip: IpAddr = match stream.read_u8().await? {
        4 => {
            let mut octets = [0; 4];
            stream.read_exact(&mut octets).await?;
            octets.into()
        }
        6 => {
            let mut octets = [0; 16];
            stream.read_exact(&mut octets).await?;
            octets.into()
        }
        other => return Err(damaged(format!("no family of addresses is {other}"))),
    };
    Ok(SocketAddr::new(ip, stream.read_u16().await?))
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn heads_and_datagrams_are_read_as_they_were_written(
            (from, to) in (address(), address()), is_any: bool, bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let head = Head { wanted: if is_any { Wanted::Any } else { Wanted::Bytes }, from, to };
            let written = head.encode();
            prop_assert_eq!(Head::read(&mut &written[..]).now_or_never().expect("at hand").expect("a head"), head);
            let datagram = Datagram { from, to, bytes: bytes.into() };
            let written = [datagram.encode(), datagram.encode()].concat();
            let mut rest = &written[..];
            for _ in 0..2 {
                prop_assert_eq!(&Datagram::read(&mut rest).now_or_never().expect("at hand").expect("a datagram"), &datagram);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn junk_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Head::read(&mut &bytes[..]).now_or_never().expect("at hand");
            let _ = Datagram::read(&mut &bytes[..]).now_or_never().expect("at hand");
        }
    }

    #[test]
    fn a_head_is_what_the_first_version_says() {
        let head = Head {
            wanted: Wanted::Bytes,
            from: SocketAddr::from(([10, 64, 0, 2], 49_152)),
            to: SocketAddr::from(([10, 64, 1, 3], 80)),
        };
        assert_eq!(head.encode(), [1, 1, 4, 10, 64, 0, 2, 0xc0, 0, 4, 10, 64, 1, 3, 0, 80]);
    }
}
