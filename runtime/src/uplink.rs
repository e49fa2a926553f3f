//! The one connection to a server: dialled, served, and dialled again to another server when it is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use shoal_client::{Transport, TransportError};
use shoal_link::http::{Body, RequestError};
use shoal_link::{Connection, Endpoint};
use tokio::sync::watch;

use crate::limits::{DIAL_TIMEOUT, REDIAL_FIRST, REDIAL_LONGEST};

/// How long a request waits for a connection while there is none.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);

/// The connection of the moment. Cheap to clone.
#[derive(Clone)]
pub struct Uplink {
    current: watch::Receiver<Option<Connection>>,
    publish: Arc<watch::Sender<Option<Connection>>>,
    servers: Arc<Mutex<Vec<String>>>,
}

impl Uplink {
    /// No connection yet; `servers` are tried in turn.
    pub fn new(servers: Vec<String>) -> Uplink {
        let (publish, current) = watch::channel(None);
        Uplink { current, publish: Arc::new(publish), servers: Arc::new(Mutex::new(servers)) }
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.current.borrow().as_ref().is_some_and(|connection| !connection.is_closed())
    }

    /// Changes with the connection.
    pub fn changes(&self) -> watch::Receiver<Option<Connection>> {
        self.current.clone()
    }

    /// Sends a request, waiting a little for a connection.
    ///
    /// # Errors
    /// [`TransportError`], which tells a request that nobody saw from one that broke under way.
    pub async fn request(&self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        self.request_within(request, CONNECTION_WAIT).await
    }

    /// As [`Uplink::request`], waiting no longer than `patience` for a connection.
    ///
    /// # Errors
    /// As [`Uplink::request`].
    pub async fn request_within(
        &self,
        request: Request<Body>,
        patience: Duration,
    ) -> Result<Response<Body>, TransportError> {
        let mut current = self.current.clone();
        let living = current.wait_for(|c| c.as_ref().is_some_and(|c| !c.is_closed()));
        let connection = match tokio::time::timeout(patience, living).await {
            Ok(Ok(connection)) => connection.clone(),
            _ => None,
        };
        let Some(connection) = connection else {
            return Err(TransportError::Unreachable("no server is connected".to_owned()));
        };
        shoal_link::http::request(&connection, request).await.map_err(|error| match error {
            RequestError::Lost(lost) => TransportError::Unreachable(lost.to_string()),
            RequestError::Broken { .. } => TransportError::Unknown(error.to_string()),
        })
    }

    /// Keeps a connection for ever; `serve` answers the streams that the server opens and returns when it is lost.
    pub async fn keep<F, R>(self, endpoint: Endpoint, serve: F)
    where
        F: Fn(Connection) -> R,
        R: Future<Output = ()>,
    {
        let mut pause = REDIAL_FIRST;
        let mut turn = 0usize;
        loop {
            let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut was_connected = false;
            for _ in 0..servers.len() {
                let server = &servers[turn % servers.len()];
                match dial(&endpoint, server).await {
                    Ok(connection) => {
                        tracing::info!(server, "connected to a server");
                        was_connected = true;
                        self.publish.send_replace(Some(connection.clone()));
                        serve(connection.clone()).await;
                        self.publish.send_replace(None);
                        let lost = connection.closed().await;
                        tracing::warn!(server, reason = lost.reason, "the connection to the server is lost");
                        turn = turn.wrapping_add(1);
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(server, error, "dialling a server failed");
                        turn = turn.wrapping_add(1);
                    }
                }
            }
            pause = if was_connected { REDIAL_FIRST } else { (pause * 2).min(REDIAL_LONGEST) };
            if !was_connected {
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn dial(endpoint: &Endpoint, server: &str) -> Result<Connection, String> {
    let dial = async {
        let address = tokio::net::lookup_host(server)
            .await
            .map_err(|error| error.to_string())?
            .next()
            .ok_or("the name has no address")?;
        let connection = endpoint.connect(address).await.map_err(|error| error.to_string())?;
        if !connection.peer().is_server() {
            connection.close();
            return Err(format!("{} is no server of the cluster", connection.peer().common_name));
        }
        Ok(connection)
    };
    tokio::time::timeout(DIAL_TIMEOUT, dial).await.unwrap_or_else(|_| Err(format!("no answer within {DIAL_TIMEOUT:?}")))
}

impl Transport for Uplink {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let uplink = self.clone();
        Box::pin(async move { uplink.request(request).await })
    }
}
