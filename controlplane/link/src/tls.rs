//! The TLS configurations: of the link (by ALPN, mutual or joining) and of the API's TCP port.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::identity::{Identity, IdentitySource, PeerIdentity};
use crate::token;

/// ALPN of the link proper: both sides show certificates of the cluster's CA.
pub(crate) const ALPN_LINK: &[u8] = b"shoal/1";

/// ALPN of joining: the newcomer has no certificate yet.
pub(crate) const ALPN_JOIN: &[u8] = b"shoal-join/1";

/// For the API's TCP port: h2 and HTTP/1.1, client certificates optional and of the cluster's CA.
///
/// # Errors
/// When the identity's CA is damaged.
pub fn tls_server_config(source: &Arc<IdentitySource>) -> Result<ServerConfig, Error> {
    let mut config = server(source)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For a TCP client with a certificate of the cluster: it trusts the cluster's CA alone.
///
/// # Errors
/// When the identity's parts are damaged.
pub fn tls_client_config(source: &Arc<IdentitySource>) -> Result<ClientConfig, Error> {
    let roots = roots(source.current().ca())?;
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Resolver(source.clone()))))
}

/// For the link's endpoint: takes members and newcomers; which one it is, the ALPN says.
pub(crate) fn link_server_config(source: &Arc<IdentitySource>) -> Result<ServerConfig, Error> {
    let mut config = server(source)?;
    config.alpn_protocols = vec![ALPN_LINK.to_vec(), ALPN_JOIN.to_vec()];
    // A ticket would let a peer resume with a certificate that has expired since.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For dialling a member as a member.
pub(crate) fn link_client_config(source: &Arc<IdentitySource>) -> Result<ClientConfig, Error> {
    let mut config = tls_client_config(source)?;
    config.alpn_protocols = vec![ALPN_LINK.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// For dialling a server as a newcomer that knows only the CA's fingerprint.
pub(crate) fn join_client_config(ca_fingerprint: &str) -> Result<ClientConfig, Error> {
    let verifier = PinnedCa { fingerprint: ca_fingerprint.to_string(), provider: provider() };
    let mut config =
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    Ok(config)
}

fn server(source: &Arc<IdentitySource>) -> Result<ServerConfig, Error> {
    let roots = Arc::new(roots(source.current().ca())?);
    let clients = WebPkiClientVerifier::builder(roots)
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::General(format!("the CA cannot verify clients: {error}")))?;
    Ok(ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(Resolver(source.clone()))))
}

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// Answers every handshake with the identity in use at that moment.
struct Resolver(Arc<IdentitySource>);

impl Resolver {
    fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        let identity: Arc<Identity> = self.0.current();
        let key = provider().key_provider.load_private_key(identity.key().clone_key()).ok()?;
        Some(Arc::new(CertifiedKey::new(identity.chain().to_vec(), key)))
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified_key()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified_key()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Trusts a CA by its fingerprint: the server must show that CA in its chain, and a certificate that it signed.
#[derive(Debug)]
struct PinnedCa {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| token::fingerprint(certificate) == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let roots = Arc::new(roots(&ca.clone().into_owned())?);
        // A worker's certificate is good for the link, but nobody hands it a token.
        if !PeerIdentity::of(end_entity).is_some_and(|peer| peer.is_server()) {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|error| Error::General(format!("the CA cannot verify servers: {error}")))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
