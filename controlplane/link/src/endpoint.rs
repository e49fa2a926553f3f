//! A UDP socket of the link: it dials and takes connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};

use crate::ca::LINK_NAME;
use crate::connection::Connection;
use crate::identity::{self, IdentitySource, PeerIdentity};
use crate::join::Newcomer;
use crate::{limits, tasks, tls};

/// A socket that dials and takes connections with one identity. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    endpoint: quinn::Endpoint,
    client: ClientConfig,
    accepted: Arc<Mutex<mpsc::Receiver<Accepted>>>,
    /// Where its packets and those of its connections are read and written.
    runtime: Handle,
}

/// What came in.
pub enum Accepted {
    /// A member of the cluster, or a client with a certificate.
    Peer(Connection),
    /// A process without a certificate that wants to join.
    Newcomer(Newcomer),
}

/// A peer could not be dialled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// This process is about to end.
    #[error("the endpoint is closed")]
    Stopped,
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
    /// Must be called inside a tokio runtime, on which it works.
    ///
    /// # Errors
    /// When the address is taken, or the identity is damaged.
    pub fn bind(address: SocketAddr, source: &Arc<IdentitySource>) -> std::io::Result<Self> {
        Self::bind_on(&Handle::current(), address, source)
    }

    /// As [`Endpoint::bind`], working on `runtime`, whoever dials and listens.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn bind_on(runtime: &Handle, address: SocketAddr, source: &Arc<IdentitySource>) -> std::io::Result<Self> {
        let _entered = runtime.enter();
        let socket = std::net::UdpSocket::bind(address)?;
        widen(&socket);
        let socket = quinn::Runtime::wrap_udp_socket(&TokioRuntime, socket)?;
        Self::start(socket, source, endpoint_config(source))
    }

    /// As [`Endpoint::bind`], over any socket; `seed` chooses what is random in QUIC, though not in TLS.
    ///
    /// # Errors
    /// When the identity is damaged.
    #[cfg(feature = "simulation")]
    pub fn over(
        socket: Arc<dyn quinn::AsyncUdpSocket>,
        source: &Arc<IdentitySource>,
        seed: [u8; 32],
    ) -> std::io::Result<Self> {
        let mut config = endpoint_config(source);
        config.rng_seed(Some(seed));
        Self::start(socket, source, config)
    }

    fn start(
        socket: Arc<dyn quinn::AsyncUdpSocket>,
        source: &Arc<IdentitySource>,
        config: EndpointConfig,
    ) -> std::io::Result<Self> {
        let transport = Arc::new(transport());
        let damaged = |error: rustls::Error| std::io::Error::other(format!("the identity cannot be used: {error}"));
        let server = QuicServerConfig::try_from(tls::link_server_config(source).map_err(damaged)?)
            .map_err(std::io::Error::other)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport);
        let client = QuicClientConfig::try_from(tls::link_client_config(source).map_err(damaged)?)
            .map_err(std::io::Error::other)?;
        let mut client = ClientConfig::new(Arc::new(client));
        // Who answers there is proved by the same handshake that lets it open streams.
        let mut trusted = self::transport();
        trusted.receive_window(limits::CONNECTION_WINDOW.into()).max_concurrent_bidi_streams(limits::STREAMS.into());
        client.transport_config(Arc::new(trusted));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))?;
        let (sender, receiver) = mpsc::channel(limits::ACCEPTED);
        tasks::spawn_connection("link endpoint", take_connections(endpoint.clone(), sender));
        Ok(Self { endpoint, client, accepted: Arc::new(Mutex::new(receiver)), runtime: Handle::current() })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Dials a member of the cluster, within [`limits::CONNECT_TIMEOUT`]; answers once each has accepted the other. Cancel safe.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        let greeted = async {
            let dialling = {
                let _entered = self.runtime.enter();
                dial(&self.endpoint, self.client.clone(), address)
            };
            let connection = dialling.await?;
            // In TLS 1.3 the dialling side is ready before the other has looked at its certificate: the greeting says that it has.
            let refused = |error: quinn::ConnectionError| ConnectError::Refused { address, reason: explain(&error) };
            let mut greeting = connection.accept_uni().await.map_err(refused)?;
            if greeting.read_to_end(GREETING.len()).await.is_ok_and(|text| text == GREETING) {
                return Ok(connection);
            }
            let reason = connection
                .close_reason()
                .map_or_else(|| "it speaks another version of the link".to_string(), |error| explain(&error));
            Err(ConnectError::Refused { address, reason })
        };
        let connection = tokio::time::timeout(limits::CONNECT_TIMEOUT, greeted)
            .await
            .unwrap_or(Err(ConnectError::Timeout(address)))?;
        match peer(&connection) {
            Some((peer, expires)) => Ok(Connection::new(connection, peer, expires)),
            None => Err(ConnectError::Refused { address, reason: "it showed no certificate with a name".to_string() }),
        }
    }

    /// The next connection whose handshake succeeded; `None` once the endpoint is closed. Cancel safe.
    ///
    /// A handshake that fails is logged once, with its reason.
    pub async fn accept(&self) -> Option<Accepted> {
        self.accepted.lock().await.recv().await
    }

    /// Closes every connection and takes no new one; waits a moment until the peers have been told.
    pub async fn close(&self) {
        self.endpoint.close(0u32.into(), b"the process ends");
        // A peer that is gone already cannot be told.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

/// What the accepting side says on a stream of its own once it has accepted the other: the version of the link.
const GREETING: &[u8] = b"shoal/1";

/// Takes connections until the endpoint is closed. Each handshake is a task of its own, so that a slow one delays nobody.
async fn take_connections(endpoint: quinn::Endpoint, accepted: mpsc::Sender<Accepted>) {
    while let Some(incoming) = endpoint.accept().await {
        let accepted = accepted.clone();
        tasks::spawn_connection("link handshake", async move {
            if let Some(connection) = shake_hands(incoming).await {
                // It fails only when nobody accepts any more, which closes the connection.
                let _ = accepted.send(connection).await;
            }
        });
    }
}

async fn shake_hands(incoming: quinn::Incoming) -> Option<Accepted> {
    let remote = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(limits::CONNECT_TIMEOUT, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::warn!(%remote, reason = explain(&error), "refused a connection");
            return None;
        }
        Err(_) => {
            tracing::debug!(%remote, "a handshake took too long");
            return None;
        }
    };
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    match (alpn.as_deref(), peer(&connection)) {
        (Some(tls::ALPN_LINK), Some((peer, expires))) => {
            // What a stranger may make us hold is little; this one is no stranger any more.
            connection.set_receive_window(limits::CONNECTION_WINDOW.into());
            connection.set_max_concurrent_bi_streams(limits::STREAMS.into());
            let mut greeting = connection.open_uni().await.ok()?;
            greeting.write_all(GREETING).await.ok()?;
            Some(Accepted::Peer(Connection::new(connection, peer, expires)))
        }
        (Some(tls::ALPN_JOIN), _) => Some(Accepted::Newcomer(Newcomer::new(connection))),
        (_, _) => {
            tracing::warn!(%remote, reason = "it showed no certificate of this cluster", "refused a connection");
            connection.close(1u32.into(), b"a certificate of this cluster is required");
            None
        }
    }
}

/// Dials `address` with `client`, within the deadline. The connection works on the runtime in which this is called.
pub(crate) fn dial(
    endpoint: &quinn::Endpoint,
    client: ClientConfig,
    address: SocketAddr,
) -> impl Future<Output = Result<quinn::Connection, ConnectError>> + use<> {
    let connecting = endpoint.connect_with(client, address, LINK_NAME);
    async move {
        let refused = |reason: String| ConnectError::Refused { address, reason };
        let connecting = connecting.map_err(|error| refused(error.to_string()))?;
        match tokio::time::timeout(limits::CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(ConnectError::Timeout(address)),
            Ok(Err(error)) => Err(refused(explain(&error))),
        }
    }
}

/// Why a handshake failed, in words; TLS's alerts come as numbers.
fn explain(error: &quinn::ConnectionError) -> String {
    /// QUIC's error codes for TLS alerts begin here (RFC 9001, 4.8).
    const CRYPTO: u64 = 0x100;
    let alert = match error {
        quinn::ConnectionError::ConnectionClosed(closed) => u64::from(closed.error_code).checked_sub(CRYPTO),
        quinn::ConnectionError::ApplicationClosed(closed) => {
            return String::from_utf8_lossy(&closed.reason).into_owned();
        }
        _ => None,
    };
    let words = match alert {
        Some(42 | 43 | 46) => "it does not accept our certificate",
        Some(45) => "our certificate has expired",
        Some(48 | 51) => "our certificate is of another cluster",
        Some(116) => "it wants a certificate of this cluster",
        Some(120) => "it does not speak this version of the link",
        _ => return error.to_string(),
    };
    words.to_string()
}

/// Gives the socket room for what comes while its process has no turn; the system may allow less. What it drops looks like a
/// congested network to QUIC, which then sends so little that answers come too late.
fn widen(socket: &std::net::UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    let widened = socket
        .set_recv_buffer_size(limits::SOCKET_BUFFER)
        .and_then(|()| socket.set_send_buffer_size(limits::SOCKET_BUFFER));
    if let Err(error) = widened {
        tracing::debug!(%error, "the socket keeps its buffers");
    }
}

/// What all connections of the link have in common.
///
/// The windows and streams for the other side are those of a stranger; they are widened once it has proved who it is.
pub(crate) fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(limits::IDLE_TIMEOUT).expect("three seconds fit");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits::KEEP_ALIVE))
        .max_concurrent_bidi_streams(limits::STRANGER_STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(limits::STREAM_WINDOW.into())
        .receive_window(limits::STRANGER_WINDOW.into())
        .send_window(u64::from(limits::CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None);
    transport
}

/// The stateless-reset key comes from the node's own key: a process that starts again tells the peers of its former
/// connections at once that those are gone.
fn endpoint_config(source: &Arc<IdentitySource>) -> EndpointConfig {
    let secret = Sha256::new()
        .chain_update(b"shoal stateless reset")
        .chain_update(source.current().key().secret_der())
        .finalize();
    EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret)))
}

/// Who the other side is, and until when its certificate says so.
fn peer(connection: &quinn::Connection) -> Option<(PeerIdentity, Timestamp)> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let certificate = chain.first()?;
    Some((PeerIdentity::of(certificate)?, identity::validity(certificate)?.1))
}
