//! One connection a peer, dialled when it is first wanted and again when it is lost.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::endpoint::{ConnectError, Endpoint};
use crate::{Connection, limits};

/// Connections by address. Each peer has a lock of its own, so that dialling a dead one delays nobody else.
pub struct Pool {
    endpoint: Endpoint,
    peers: std::sync::Mutex<HashMap<String, Arc<Mutex<Peer>>>>,
    on_connect: Option<Box<dyn Fn(Connection) + Send + Sync>>,
}

#[derive(Default)]
struct Peer {
    connection: Option<Connection>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Pool {
    /// An empty pool that dials with `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, peers: std::sync::Mutex::default(), on_connect: None }
    }

    /// Calls `serve` with every new connection, so that the streams which the peer opens on it are served too.
    #[must_use]
    pub fn on_connect(mut self, serve: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        self.on_connect = Some(Box::new(serve));
        self
    }

    /// The connection to `address` (a host and a port), dialled if there is none. Cancel safe.
    ///
    /// While a peer does not answer, further calls fail at once for a while that doubles up to
    /// [`limits::REDIAL_LONGEST`], so that nobody waits for the dead.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn get(&self, address: &str) -> Result<Connection, ConnectError> {
        let peer = self.peer(address);
        let mut peer = peer.lock().await;
        if let Some(connection) = peer.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        peer.connection = None;
        let resolved = resolve(address).await?;
        if peer.not_before.is_some_and(|moment| Instant::now() < moment) {
            return Err(ConnectError::Timeout(resolved));
        }
        match self.endpoint.connect(resolved).await {
            Ok(connection) => {
                *peer = Peer { connection: Some(connection.clone()), failures: 0, not_before: None };
                if let Some(serve) = &self.on_connect {
                    serve(connection.clone());
                }
                Ok(connection)
            }
            Err(error) => {
                peer.not_before = Some(Instant::now() + pause(peer.failures));
                peer.failures = peer.failures.saturating_add(1);
                Err(error)
            }
        }
    }

    /// The connection to `address` if there is a living one; dials nothing and waits for nothing.
    pub fn existing(&self, address: &str) -> Option<Connection> {
        let peer = self.peer(address);
        let peer = peer.try_lock().ok()?;
        peer.connection.clone().filter(|connection| !connection.is_closed())
    }

    /// Closes the connection to `address`, if there is one, and forgets the peer.
    pub async fn forget(&self, address: &str) {
        let peer = self.peers.lock().expect("no code panics while it holds this lock").remove(address);
        if let Some(peer) = peer
            && let Some(connection) = peer.lock().await.connection.take()
        {
            connection.close();
        }
    }

    fn peer(&self, address: &str) -> Arc<Mutex<Peer>> {
        let mut peers = self.peers.lock().expect("no code panics while it holds this lock");
        peers.entry(address.to_string()).or_default().clone()
    }
}

/// How long to leave a peer alone after so many failures in a row.
fn pause(failures: u32) -> Duration {
    limits::REDIAL_FIRST.saturating_mul(1 << failures.min(10)).min(limits::REDIAL_LONGEST)
}

/// The first address that `address` stands for.
///
/// # Errors
/// [`ConnectError::Address`].
pub(crate) async fn resolve(address: &str) -> Result<SocketAddr, ConnectError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let failed = |reason: String| ConnectError::Address { address: address.to_string(), reason };
    let mut found = tokio::net::lookup_host(address).await.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("the name has no address".to_string()))
}
