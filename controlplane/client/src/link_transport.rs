//! To the API over the link: one connection, to one server, until it fails; then the next server.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use shoal_link::http::RequestError;
use shoal_link::{Connection, Pool};

use crate::transport::{Body, Transport, TransportError};

/// The way of a process that has an identity of the cluster. The connection is the pool's, shared with all its other uses.
pub struct LinkTransport {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Arc<Pool>,
    servers: Mutex<Servers>,
}

struct Servers {
    addresses: Vec<String>,
    current: usize,
}

impl LinkTransport {
    /// A transport over the connections of `pool` to `servers` (host and port), the first one first.
    pub fn new(pool: Arc<Pool>, servers: Vec<String>) -> Self {
        Self { shared: Arc::new(Shared { pool, servers: Mutex::new(Servers { addresses: servers, current: 0 }) }) }
    }

    /// Replaces the list of servers; the current one is kept if it is still among them.
    pub fn set_servers(&self, addresses: Vec<String>) {
        let mut servers = self.shared.servers();
        let current = servers.addresses.get(servers.current).cloned();
        servers.current = addresses.iter().position(|address| Some(address) == current.as_ref()).unwrap_or_default();
        servers.addresses = addresses;
    }

    /// The address of the server that requests go to now.
    pub fn current_server(&self) -> Option<String> {
        let servers = self.shared.servers();
        servers.addresses.get(servers.current).cloned()
    }

    /// The connection that requests use, dialled if there is none, from the current server on. Cancel safe.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] when no server answers.
    pub async fn connection(&self) -> Result<Connection, TransportError> {
        self.shared.connection().await.map(|(_, connection)| connection)
    }
}

impl Shared {
    fn servers(&self) -> std::sync::MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self) -> Result<(String, Connection), TransportError> {
        let (addresses, first) = {
            let servers = self.servers();
            (servers.addresses.clone(), servers.current)
        };
        let mut reasons = Vec::new();
        for offset in 0..addresses.len() {
            let address = &addresses[(first + offset) % addresses.len()];
            match self.pool.get(address).await {
                Ok(connection) => {
                    self.prefer(address);
                    return Ok((address.clone(), connection));
                }
                Err(error) => reasons.push(format!("{address}: {error}")),
            }
        }
        if reasons.is_empty() {
            reasons.push("no server is known".to_owned());
        }
        Err(TransportError::Unreachable(reasons.join("; ")))
    }

    fn prefer(&self, address: &str) {
        let mut servers = self.servers();
        if let Some(index) = servers.addresses.iter().position(|known| known == address) {
            servers.current = index;
        }
    }

    /// Goes on to the next server, unless somebody else has already.
    fn leave(&self, address: &str) {
        let mut servers = self.servers();
        if servers.addresses.get(servers.current).is_some_and(|current| current == address) {
            servers.current = (servers.current + 1) % servers.addresses.len();
        }
    }
}

impl Transport for LinkTransport {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (address, connection) = shared.connection().await?;
            shoal_link::http::request(&connection, request).await.map_err(|error| match error {
                RequestError::Lost(lost) => {
                    shared.leave(&address);
                    TransportError::Unreachable(lost.to_string())
                }
                RequestError::Broken { .. } => {
                    if connection.is_closed() {
                        shared.leave(&address);
                    }
                    TransportError::Unknown(error.to_string())
                }
            })
        })
    }
}
