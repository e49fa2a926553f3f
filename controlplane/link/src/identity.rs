//! Who a process is: a certificate chain, its key and the CA it trusts; on disk, in use, and as the other side sees it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who the other side of a connection is, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The user: `system:node:worker-1`, `system:shoal:server:server-1`, `shoal-admin`.
    pub common_name: String,
    /// The groups: `system:nodes`, `shoal:servers`, `system:masters`.
    pub organizations: Vec<String>,
}

impl PeerIdentity {
    /// What the subject of `certificate` says; `None` when it has no common name or is damaged.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next()?.as_str().ok()?.to_string();
        let organizations =
            subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_string).collect();
        Some(Self { common_name, organizations })
    }

    /// Whether this is a control-plane server of the cluster.
    pub fn is_server(&self) -> bool {
        self.organizations.iter().any(|organization| organization == crate::SERVERS)
    }

    /// The node's name, when this is a worker.
    pub fn node_name(&self) -> Option<&str> {
        let is_node = self.organizations.iter().any(|organization| organization == crate::NODES);
        self.common_name.strip_prefix("system:node:").filter(|_| is_node)
    }
}

/// A certificate chain (own first), the key to it, and the CA to trust.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    ca: CertificateDer<'static>,
}

/// An identity's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refused.
    #[error("failed to use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in the file is no PEM of the kind it should be.
    #[error("{} is damaged: it holds no {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
}

impl Identity {
    /// Puts the parts together; `chain` begins with the identity's own certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, ca: CertificateDer<'static>) -> Self {
        Self { chain, key, ca }
    }

    /// Reads `NAME.crt`, `NAME.key` and `ca.crt` in `directory`.
    ///
    /// # Errors
    /// [`IdentityError`], with the file.
    pub fn load(directory: &Path, name: &str) -> Result<Self, IdentityError> {
        let path = |ending: &str| directory.join(format!("{name}.{ending}"));
        let chain = read_certificates(&path("crt"))?;
        let ca = read_certificates(&directory.join("ca.crt"))?.swap_remove(0);
        let key_path = path("key");
        let text = std::fs::read(&key_path).map_err(|source| IdentityError::Io { path: key_path.clone(), source })?;
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| IdentityError::Damaged { path: key_path, what: "private key" })?;
        Ok(Self { chain, key, ca })
    }

    /// Writes `NAME.crt`, `NAME.key` (for the owner only) and `ca.crt` into `directory`, each beside and then in its place;
    /// the certificate last, so that [`Identity::load`] finds it only with its key.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save(&self, directory: &Path, name: &str) -> Result<(), IdentityError> {
        write_private(&directory.join("ca.crt"), pem("CERTIFICATE", &self.ca).as_bytes())?;
        write_private(&directory.join(format!("{name}.key")), self.key_pem().as_bytes())?;
        write_private(&directory.join(format!("{name}.crt")), self.chain_pem().as_bytes())
    }

    /// The chain in PEM, own certificate first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
    }

    /// The key in PEM (PKCS #8).
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.secret_der())
    }

    /// The CA's certificate in PEM.
    pub fn ca_pem(&self) -> String {
        pem("CERTIFICATE", &self.ca)
    }

    /// The chain, own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The key.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The CA to trust.
    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// What the own certificate says; `None` when it is damaged.
    pub fn subject(&self) -> Option<PeerIdentity> {
        PeerIdentity::of(self.chain.first()?)
    }

    /// From when to when the own certificate is valid; `None` when it is damaged.
    pub fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        validity(self.chain.first()?)
    }

    /// The same key under a new certificate.
    #[must_use]
    pub fn renewed(&self, certificate: CertificateDer<'static>) -> Self {
        let ca = self.ca.clone();
        Self { chain: vec![certificate, ca.clone()], key: self.key.clone_key(), ca }
    }
}

/// From when to when `certificate` is valid; `None` when it is damaged.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let second = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((second(validity.not_before)?, second(validity.not_after)?))
}

/// The identity in use. It can be replaced while connections go on: new handshakes take the new one.
pub struct IdentitySource {
    current: ArcSwap<Identity>,
}

impl IdentitySource {
    /// Begins with `identity`.
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(identity) })
    }

    /// The identity in use now.
    pub fn current(&self) -> Arc<Identity> {
        self.current.load_full()
    }

    /// Uses `identity` from now on.
    pub fn replace(&self, identity: Identity) {
        self.current.store(Arc::new(identity));
    }
}

/// All certificates of a PEM text.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect()
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| IdentityError::Io { path: path.to_path_buf(), source })?;
    match certificates(&text) {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(IdentityError::Damaged { path: path.to_path_buf(), what: "certificate" }),
    }
}

/// Writes a file that only its owner may read, beside and then in its place, durably.
///
/// # Errors
/// [`IdentityError::Io`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let beside = path.with_extension("new");
    let written = || {
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |directory| std::fs::File::open(directory)?.sync_all())
    };
    written().map_err(|source| IdentityError::Io { path: path.to_path_buf(), source })
}

/// One PEM block (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}
