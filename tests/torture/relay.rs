//! The network between the servers: each is reached through a relay, which can be told to let nothing through from another one.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::net::UdpSocket;

/// The largest datagram.
const DATAGRAM: usize = 64 << 10;

/// Which ways are cut: from, to; servers by number, from 0.
#[derive(Clone, Default)]
pub struct Ways(Arc<Mutex<BTreeSet<(usize, usize)>>>);

impl Ways {
    /// Nothing passes from one to the other any more.
    pub fn cut(&self, from: usize, to: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((from, to));
    }

    /// Everything passes.
    pub fn heal(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn are_open(&self, from: Option<usize>, to: usize) -> bool {
        let cut = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        from.is_none_or(|from| !cut.contains(&(from, to)))
    }
}

/// Where the server `number` listens when the first has this port, and where the others find it.
pub fn addresses(number: usize, first_port: u16) -> (SocketAddr, SocketAddr) {
    let (port, host) = (first_port + number as u16, number as u8 + 1);
    (([127, 0, 0, 1], port).into(), ([127, 0, 1, host], port).into())
}

/// Relays what is sent to `count` servers, and what they answer, until the runtime ends.
pub async fn run(count: usize, first_port: u16, ways: &Ways) -> anyhow::Result<()> {
    for number in 0..count {
        let (_, outside) = addresses(number, first_port);
        let socket = UdpSocket::bind(outside).await.with_context(|| format!("failed to listen on {outside}"))?;
        let relay = Relay { number, count, first_port, ways: ways.clone(), socket: Arc::new(socket) };
        tokio::spawn(async move {
            if let Err(error) = relay.run().await {
                eprintln!("the relay of server {number} has ended: {error:?}");
            }
        });
    }
    Ok(())
}

struct Relay {
    number: usize,
    count: usize,
    first_port: u16,
    ways: Ways,
    socket: Arc<UdpSocket>,
}

impl Relay {
    async fn run(self) -> anyhow::Result<()> {
        let mut sources: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut bytes = vec![0; DATAGRAM];
        loop {
            let (length, source) = self.socket.recv_from(&mut bytes).await?;
            // A server sends from the socket on which it listens.
            let from = (0..self.count).find(|number| addresses(*number, self.first_port).0 == source);
            let inside = match sources.get(&source) {
                Some(inside) => inside,
                None => {
                    let inside = self.connect(source, from).await?;
                    sources.entry(source).or_insert(inside)
                }
            };
            if self.ways.are_open(from, self.number) {
                // As with any network: what cannot be sent is lost.
                let _ = inside.send(&bytes[..length]).await;
            }
        }
    }

    /// A socket for what comes from `source`, whose answers go back there.
    async fn connect(&self, source: SocketAddr, from: Option<usize>) -> anyhow::Result<Arc<UdpSocket>> {
        let inside = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await?);
        inside.connect(addresses(self.number, self.first_port).0).await?;
        let (answers, outside, ways, number) = (inside.clone(), self.socket.clone(), self.ways.clone(), self.number);
        tokio::spawn(async move {
            let mut bytes = vec![0; DATAGRAM];
            loop {
                // It fails while the server does not run.
                let Ok(length) = answers.recv(&mut bytes).await else { continue };
                if from.is_none_or(|from| ways.are_open(Some(number), from)) {
                    let _ = outside.send_to(&bytes[..length], source).await;
                }
            }
        });
        Ok(inside)
    }
}
