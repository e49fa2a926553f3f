//! Joining: a process without a certificate shows a token and a request for a certificate, and gets one.
//!
//! The newcomer dials with ALPN `shoal-join/1`, insists on the CA whose fingerprint its token carries, opens one stream, sends
//! one JSON document and reads one. What a token allows, and what else a new server must be given, the control plane decides:
//! `grant` is its own document.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::endpoint::{self, ConnectError};
use crate::identity::Identity;
use crate::token::{JoinRole, JoinToken};
use crate::{limits, pool, tls};

/// What a newcomer says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The id of its token.
    pub token_id: String,
    /// The secret of its token.
    pub token_secret: String,
    /// What it wants to be.
    pub role: JoinRole,
    /// The name that it wants to have: a node's or a server's.
    pub name: String,
    /// Its certificate request (PKCS #10, DER).
    pub request: Vec<u8>,
    /// The addresses that it will serve on, without ports, to stand in its certificate.
    pub addresses: Vec<std::net::IpAddr>,
    /// What else its role needs to say.
    pub details: Value,
}

/// What it gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinReply {
    /// Its certificate (DER), for the key of its request.
    pub certificate: Vec<u8>,
    /// The CA's certificate (DER).
    pub ca: Vec<u8>,
    /// The link addresses of all servers.
    pub servers: Vec<String>,
    /// What else its role is given.
    pub grant: Value,
}

/// Joining did not succeed; nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server could not be reached, or its CA is not the token's.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("joining broke off: {0}")]
    Broken(String),
}

/// What a newcomer asks for, beside its token.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The name of the node or server.
    pub name: String,
    /// The addresses that it will serve on.
    pub addresses: Vec<std::net::IpAddr>,
    /// What else its role needs to say.
    pub details: Value,
}

/// Joins through the server at `address`: makes a key, shows `token`, and answers the new identity and the server's reply.
///
/// # Errors
/// [`JoinError`].
pub async fn join(address: &str, token: &JoinToken, wish: &Wish) -> Result<(Identity, JoinReply), JoinError> {
    let (key, request) = crate::ca::request().map_err(|error| JoinError::Broken(error.to_string()))?;
    let request = JoinRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        role: token.role,
        name: wish.name.clone(),
        request,
        addresses: wish.addresses.clone(),
        details: wish.details.clone(),
    };
    let asked = tokio::time::timeout(limits::JOIN_TIMEOUT, ask(address, token, &request)).await;
    let reply = asked.unwrap_or_else(|_| Err(JoinError::Broken("the server did not answer in time".to_string())))?;
    Ok((identity(&reply, key), reply))
}

/// The identity that a reply and the key of its request make.
fn identity(reply: &JoinReply, key: PrivateKeyDer<'static>) -> Identity {
    let ca = CertificateDer::from(reply.ca.clone());
    Identity::new(vec![CertificateDer::from(reply.certificate.clone()), ca.clone()], key, ca)
}

async fn ask(address: &str, token: &JoinToken, request: &JoinRequest) -> Result<JoinReply, JoinError> {
    let broken = |error: &dyn std::fmt::Display| JoinError::Broken(error.to_string());
    let resolved = pool::resolve(address).await?;
    let local = if resolved.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let endpoint = quinn::Endpoint::client(local.parse().expect("an address")).map_err(|error| broken(&error))?;
    let config = tls::join_client_config(&token.ca_fingerprint).map_err(|error| broken(&error))?;
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).map_err(|error| broken(&error))?;
    let mut config = quinn::ClientConfig::new(std::sync::Arc::new(config));
    config.transport_config(std::sync::Arc::new(endpoint::transport()));
    let connection = endpoint::dial(&endpoint, config, resolved).await?;

    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| broken(&error))?;
    let text = serde_json::to_vec(request).map_err(|error| broken(&error))?;
    send.write_all(&text).await.map_err(|error| broken(&error))?;
    send.shutdown().await.map_err(|error| broken(&error))?;
    let reply = receive.read_to_end(limits::JOIN_MESSAGE).await.map_err(|error| broken(&error))?;
    connection.close(0u32.into(), b"joined");
    endpoint.wait_idle().await;
    let reply: Result<JoinReply, String> = serde_json::from_slice(&reply).map_err(|error| broken(&error))?;
    reply.map_err(JoinError::Refused)
}

/// A connection without a certificate, on which one question may be asked.
pub struct Newcomer {
    connection: quinn::Connection,
}

impl Newcomer {
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self { connection }
    }

    /// Where it dials from.
    pub fn remote_address(&self) -> std::net::SocketAddr {
        self.connection.remote_address()
    }

    /// Reads its one request, answers it with what `decide` says, and closes. A refusal is for the newcomer to read; what
    /// the log is told is up to `decide`.
    pub async fn answer<F, R>(self, decide: F)
    where
        F: FnOnce(JoinRequest) -> R,
        R: Future<Output = Result<JoinReply, String>>,
    {
        let conversation = async {
            let (mut send, mut receive) = self.connection.accept_bi().await.ok()?;
            let text = receive.read_to_end(limits::JOIN_MESSAGE).await.ok()?;
            let reply = match serde_json::from_slice(&text) {
                Ok(request) => decide(request).await,
                Err(error) => Err(format!("this is no join request: {error}")),
            };
            let reply = serde_json::to_vec(&reply).ok()?;
            send.write_all(&reply).await.ok()?;
            send.shutdown().await.ok()?;
            // The newcomer closes once it has read the answer.
            self.connection.closed().await;
            Some(())
        };
        if !matches!(tokio::time::timeout(limits::JOIN_TIMEOUT, conversation).await, Ok(Some(()))) {
            tracing::debug!(remote = %self.connection.remote_address(), "a newcomer broke off");
        }
    }
}
