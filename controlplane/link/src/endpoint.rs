//! A UDP socket of the link: it dials and takes connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::ca::LINK_NAME;
use crate::connection::Connection;
use crate::identity::{IdentitySource, PeerIdentity};
use crate::join::Newcomer;
use crate::{limits, tls};

/// A socket that dials and takes connections with one identity. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    endpoint: quinn::Endpoint,
    client: ClientConfig,
}

/// What came in.
pub enum Accepted {
    /// A member of the cluster, or a client with a certificate.
    Peer(Connection),
    /// A process without a certificate that wants to join.
    Newcomer(Newcomer),
}

/// A peer could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answered in time.
    #[error("{0} does not answer")]
    Timeout(SocketAddr),
    /// The address is no host and port, or its name is unknown.
    #[error("{address:?} is no address: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// Why it is none.
        reason: String,
    },
    /// The handshake failed: another CA, an expired certificate, or the peer refused ours.
    #[error("{address} refused the connection or is not of this cluster: {reason}")]
    Refused {
        /// Who was dialled.
        address: SocketAddr,
        /// What the handshake said.
        reason: String,
    },
}

impl Endpoint {
    /// Binds `address` (UDP) with the identity of `source`, which may change later.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, or the identity is damaged.
    pub fn bind(address: SocketAddr, source: &Arc<IdentitySource>) -> std::io::Result<Self> {
        let transport = Arc::new(transport());
        let damaged = |error: rustls::Error| std::io::Error::other(format!("the identity cannot be used: {error}"));
        let server = QuicServerConfig::try_from(tls::link_server_config(source).map_err(damaged)?).map_err(std::io::Error::other)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport.clone());
        let client = QuicClientConfig::try_from(tls::link_client_config(source).map_err(damaged)?).map_err(std::io::Error::other)?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        let socket = std::net::UdpSocket::bind(address)?;
        let runtime = quinn::default_runtime().ok_or_else(|| std::io::Error::other("no async runtime"))?;
        let endpoint = quinn::Endpoint::new(endpoint_config(source), Some(server), socket, runtime)?;
        Ok(Self { endpoint, client })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Dials a member of the cluster, within [`limits::CONNECT_TIMEOUT`]. Cancel safe.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        let connection = dial(&self.endpoint, self.client.clone(), address).await?;
        match peer(&connection) {
            Some(peer) => Ok(Connection::new(connection, peer)),
            None => Err(ConnectError::Refused { address, reason: "it showed no certificate with a name".to_string() }),
        }
    }

    /// The next connection whose handshake succeeds; `None` once the endpoint is closed.
    ///
    /// A handshake that fails is logged here, once, with its reason.
    pub async fn accept(&self) -> Option<Accepted> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let remote = incoming.remote_address();
            let handshake = async { incoming.accept()?.await };
            let connection = match tokio::time::timeout(limits::CONNECT_TIMEOUT, handshake).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    tracing::warn!(%remote, %error, "refused a connection");
                    continue;
                }
                Err(_) => {
                    tracing::debug!(%remote, "a handshake took too long");
                    continue;
                }
            };
            let alpn = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok()).and_then(|data| data.protocol);
            match (alpn.as_deref(), peer(&connection)) {
                (Some(tls::ALPN_LINK), Some(peer)) => return Some(Accepted::Peer(Connection::new(connection, peer))),
                (Some(tls::ALPN_JOIN), _) => return Some(Accepted::Newcomer(Newcomer::new(connection))),
                (_, _) => {
                    tracing::warn!(%remote, "refused a connection: it showed no certificate of this cluster");
                    connection.close(1u32.into(), b"a certificate of this cluster is required");
                }
            }
        }
    }

    /// Closes every connection and takes no new one; waits a moment until the peers have been told.
    pub async fn close(&self) {
        self.endpoint.close(0u32.into(), b"the process ends");
        // A peer that is gone already cannot be told.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

/// Dials `address` with `client`, within the deadline.
pub(crate) async fn dial(endpoint: &quinn::Endpoint, client: ClientConfig, address: SocketAddr) -> Result<quinn::Connection, ConnectError> {
    let refused = |reason: String| ConnectError::Refused { address, reason };
    let connecting = endpoint.connect_with(client, address, LINK_NAME).map_err(|error| refused(error.to_string()))?;
    match tokio::time::timeout(limits::CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(ConnectError::Timeout(address)),
        Ok(Err(error)) => Err(refused(error.to_string())),
    }
}

/// What all connections of the link have in common.
pub(crate) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(limits::IDLE_TIMEOUT).expect("three seconds fit");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits::KEEP_ALIVE))
        .max_concurrent_bidi_streams(limits::STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(limits::STREAM_WINDOW.into())
        .receive_window(limits::CONNECTION_WINDOW.into())
        .send_window(u64::from(limits::CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None);
    transport
}

/// The stateless-reset key comes from the node's own key: a process that starts again tells the peers of its former
/// connections at once that those are gone.
fn endpoint_config(source: &Arc<IdentitySource>) -> EndpointConfig {
    let secret = Sha256::new().chain_update(b"shoal stateless reset").chain_update(source.current().key().secret_der()).finalize();
    EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret)))
}

fn peer(connection: &quinn::Connection) -> Option<PeerIdentity> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    PeerIdentity::of(chain.first()?)
}
