//! QUIC between the cluster's own processes: identities, mutual TLS, streams, and HTTP on a stream.
//!
//! One connection a pair, dialled by either side; both sides open streams on it. It knows neither Raft's messages nor
//! Kubernetes' objects: a stream begins with a byte that says what it is for ([`StreamKind`]), and the rest is the caller's.
//! Read `endpoint` and `connection` first, then `http`.

pub mod ca;
mod connection;
mod endpoint;
pub mod http;
mod identity;
pub mod join;
pub mod limits;
mod pool;
pub mod renew;
pub mod tasks;
mod tls;
pub mod token;

pub use connection::{Connection, ConnectionLost, Stream, StreamKind};
pub use endpoint::{Accepted, ConnectError, Endpoint};
pub use identity::{Identity, IdentityError, IdentitySource, PeerIdentity, write_private};
pub use pool::Pool;
pub use tls::{tls_client_config, tls_server_config};

/// The organization of every control-plane server's certificate.
pub const SERVERS: &str = "shoal:servers";

/// The organization of every worker's certificate.
pub const NODES: &str = "system:nodes";

/// Chooses the cryptography of all TLS in this process. Call it once, before anything else; a second call changes nothing.
pub fn install_crypto() {
    // An error means that a provider is installed already, which can only be this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
