//! The real link of a server, over datagrams in memory.

use std::io;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::RngExt;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PKCS_ED25519};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use shoal_link::ca::{self, CertificateAuthority, Subject};
use shoal_link::{Accepted, Connection, Endpoint, Identity, IdentitySource, PeerIdentity, Pool, SERVERS, StreamKind};
use shoal_store::simulation::seeded;
use shoal_store::{PeerIo, PeerStream, Store};

use crate::datagrams::{self, Socket};
use crate::net::{Net, OPEN};

/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410).
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// One server's end of the link. Clones are the same.
#[derive(Clone)]
pub struct Link {
    endpoint: Endpoint,
    pool: Arc<Pool>,
}

impl Link {
    pub fn new(net: &Net, own: u64, life: u64) -> Self {
        shoal_link::install_crypto();
        let socket = Arc::new(Socket::new(net, own, life));
        let source = IdentitySource::new(identity(own));
        let endpoint = Endpoint::over(socket, &source, net.random().random()).expect("the identity is whole");
        let pool = Arc::new(Pool::new(endpoint.clone()).only(SERVERS));
        Self { endpoint, pool }
    }

    /// Serves the other servers' streams.
    pub fn serve(&self, store: Store) {
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            while let Some(accepted) = endpoint.accept().await {
                if let Accepted::Peer(connection) = accepted {
                    tokio::spawn(serve(connection, store.clone()));
                }
            }
        });
    }

    /// A stream to another server.
    pub fn open(&self, to: u64, kind: PeerStream) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        let pool = self.pool.clone();
        let opened = async move {
            let connection = pool.get(&datagrams::address(to).to_string()).await.map_err(io::Error::other)?;
            if *connection.peer() != name(to) {
                return Err(io::Error::other("somebody else answers"));
            }
            let stream = connection.open(stream_kind(kind)).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn PeerIo>)
        };
        async move {
            let late = || io::ErrorKind::TimedOut.into();
            tokio::time::timeout(OPEN, opened).await.unwrap_or_else(|_| Err(late()))
        }
        .boxed()
    }
}

async fn serve(connection: Connection, store: Store) {
    while let Ok((kind, stream)) = connection.accept().await {
        let kind = kind.0.checked_sub(StreamKind::STORE_FIRST.0).and_then(PeerStream::from_byte);
        if let Some(kind) = kind {
            let store = store.clone();
            tokio::spawn(seeded(async move { store.serve_peer(kind, Box::new(stream)).await }));
        }
    }
}

fn stream_kind(kind: PeerStream) -> StreamKind {
    StreamKind(StreamKind::STORE_FIRST.0 + kind as u8)
}

fn name(id: u64) -> PeerIdentity {
    PeerIdentity { common_name: format!("server-{id}"), organizations: vec![SERVERS.to_string()] }
}

/// A key that is always the same. Its signatures have one length, which those of other kinds have not: how many packets there are
/// depends on it.
fn key(number: u8) -> PrivateKeyDer<'static> {
    let bytes = [&ED25519[..], &[number; 32]].concat();
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(bytes))
}

fn authority() -> &'static CertificateAuthority {
    static AUTHORITY: OnceLock<CertificateAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::from_der_and_sign_algo(&key(255), &PKCS_ED25519).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "simulated");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).expect("a certificate");
        CertificateAuthority::from_pem(&certificate.pem(), &key.serialize_pem()).expect("a CA")
    })
}

fn identity(id: u64) -> Identity {
    let key = key(u8::try_from(id % 250).expect("it is small"));
    let request = ca::request_for(&key).expect("a request");
    let subject = Subject {
        identity: name(id),
        member: true,
        names: Vec::new(),
        addresses: Vec::new(),
        validity: shoal_link::limits::MEMBER_CERTIFICATE,
    };
    let certificate = authority().sign(&request, &subject).expect("a certificate");
    let ca = authority().certificate().clone();
    Identity::new(vec![certificate, ca.clone()], key, ca)
}
