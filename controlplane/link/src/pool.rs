//! One connection a peer, dialled when it is first wanted and again when it is lost.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use crate::endpoint::{ConnectError, Endpoint};
use crate::{Connection, limits, tasks};

/// Connections by address. Each peer has a lock of its own, so that dialling a dead one delays nobody else.
pub struct Pool {
    endpoint: Endpoint,
    peers: std::sync::Mutex<HashMap<String, Arc<Mutex<Peer>>>>,
    serve: Option<Serve>,
    organization: Option<&'static str>,
}

type Serve = Arc<dyn Fn(Connection) + Send + Sync>;

#[derive(Default)]
struct Peer {
    connection: Option<Connection>,
    failures: u32,
    not_before: Option<Instant>,
    last_error: Option<ConnectError>,
}

impl Pool {
    /// An empty pool that dials with `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, peers: std::sync::Mutex::default(), serve: None, organization: None }
    }

    /// Calls `serve` with every new connection, so that the streams which the peer opens on it are served too.
    #[must_use]
    pub fn on_connect(mut self, serve: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        self.serve = Some(Arc::new(serve));
        self
    }

    /// Refuses peers that are not of `organization`, such as [`crate::SERVERS`]: the address alone proves nothing.
    #[must_use]
    pub fn only(mut self, organization: &'static str) -> Self {
        self.organization = Some(organization);
        self
    }

    /// The connection to `address` (a host and a port), dialled if there is none. Cancel safe: the dialling goes on.
    ///
    /// While a peer does not answer, further calls fail at once, with the last failure, for a while that doubles up to
    /// [`limits::REDIAL_LONGEST`], so that nobody waits for the dead.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn get(&self, address: &str) -> Result<Connection, ConnectError> {
        let mut peer = self.peer(address).lock_owned().await;
        if let Some(connection) = peer.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        peer.connection = None;
        if let Some(error) = peer.last_error.clone()
            && peer.not_before.is_some_and(|moment| Instant::now() < moment)
        {
            return Err(error);
        }
        // A caller with little patience must not keep a slow peer from ever being reached.
        let (sender, receiver) = oneshot::channel();
        let (endpoint, organization, serve, address) =
            (self.endpoint.clone(), self.organization, self.serve.clone(), address.to_string());
        tasks::spawn_connection("dial", async move {
            let dialled = dial(&endpoint, &address, organization).await;
            peer.note(&dialled);
            if let (Ok(connection), Some(serve)) = (&dialled, serve) {
                serve(connection.clone());
            }
            drop(peer);
            // It fails only when the caller has gone.
            let _ = sender.send(dialled);
        });
        receiver.await.unwrap_or_else(|_| Err(ConnectError::Stopped))
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

impl Peer {
    fn note(&mut self, dialled: &Result<Connection, ConnectError>) {
        match dialled {
            Ok(connection) => *self = Self { connection: Some(connection.clone()), ..Self::default() },
            Err(error) => {
                self.not_before = Some(Instant::now() + pause(self.failures));
                self.failures = self.failures.saturating_add(1);
                self.last_error = Some(error.clone());
            }
        }
    }
}

async fn dial(
    endpoint: &Endpoint,
    address: &str,
    organization: Option<&'static str>,
) -> Result<Connection, ConnectError> {
    let resolved = resolve(address).await?;
    let connection = endpoint.connect(resolved).await?;
    if organization.is_some_and(|wanted| !connection.peer().organizations.iter().any(|has| has == wanted)) {
        connection.close();
        let reason = format!("{:?} is not of {:?}", connection.peer().common_name, organization.unwrap_or_default());
        return Err(ConnectError::Refused { address: resolved, reason });
    }
    Ok(connection)
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
    match tokio::time::timeout(limits::CONNECT_TIMEOUT, tokio::net::lookup_host(address)).await {
        Ok(Ok(mut found)) => found.next().ok_or_else(|| failed("the name has no address".to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("looking up the name took too long".to_string())),
    }
}
