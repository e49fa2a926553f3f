//! The cluster's own certificate authority, and what it signs.
//!
//! P-256 throughout, because every Kubernetes client reads it. A certificate's subject is the identity: the common name is
//! the user, the organizations are the groups.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::identity::{Identity, PeerIdentity};
use crate::limits;

/// The name that every member's certificate carries beside its addresses, and that the dialling side asks for: who the
/// member is stands in the subject, and addresses may change.
pub(crate) const LINK_NAME: &str = "link.shoal";

/// A CA with its key: on every server, and nowhere else.
pub struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    key_pem: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Common name and organizations.
    pub identity: PeerIdentity,
    /// Whether it may serve, as servers and workers do; all may be clients.
    pub member: bool,
    /// DNS names beside the link's own.
    pub names: Vec<String>,
    /// IP addresses that it serves on.
    pub addresses: Vec<IpAddr>,
    /// How long it is valid.
    pub validity: Duration,
}

/// A certificate, a key or a request could not be made or read; the text says which.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing}")]
pub struct CaError {
    doing: &'static str,
    source: rcgen::Error,
}

fn failed(doing: &'static str) -> impl Fn(rcgen::Error) -> CaError {
    move |source| CaError { doing, source }
}

impl CertificateAuthority {
    /// A new CA with a new key, named for `cluster`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn create(cluster: &str) -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(failed("make the CA's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("shoal-ca {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, limits::CA_CERTIFICATE);
        let certificate = params.self_signed(&key).map_err(failed("sign the CA's certificate"))?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// The CA whose certificate and key are in PEM.
    ///
    /// # Errors
    /// When one of them is damaged.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("read the CA's key"))?;
        let certificate = crate::identity::certificates(certificate_pem)
            .ok()
            .and_then(|chain| chain.into_iter().next())
            .ok_or(rcgen::Error::CouldNotParseCertificate)
            .map_err(failed("read the CA's certificate"))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(failed("read the CA's certificate"))?;
        Ok(Self { certificate, key_pem: key_pem.to_string(), certificate_pem: certificate_pem.to_string(), issuer })
    }

    /// The CA's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's own certificate in PEM: what clients are given.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The CA's key in PEM: for the other servers only.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A new key and a certificate for it.
    ///
    /// # Errors
    /// When the system has no randomness, or a name is no DNS name.
    pub fn issue(&self, subject: &Subject) -> Result<Identity, CaError> {
        let key = KeyPair::generate().map_err(failed("make a key"))?;
        let certificate = params(subject)?.signed_by(&key, &self.issuer).map_err(failed("sign a certificate"))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Identity::new(vec![certificate.der().clone(), self.certificate.clone()], key, self.certificate.clone()))
    }

    /// A certificate for the key in `request` (a PKCS #10 request in DER). Everything else in the request is passed over:
    /// what the certificate says is `subject`, which the caller has checked.
    ///
    /// # Errors
    /// When the request is damaged or its signature is wrong.
    pub fn sign(&self, request: &[u8], subject: &Subject) -> Result<CertificateDer<'static>, CaError> {
        let request = CertificateSigningRequestDer::from(request);
        let mut request =
            CertificateSigningRequestParams::from_der(&request).map_err(failed("read a certificate request"))?;
        request.params = params(subject)?;
        let certificate = request.signed_by(&self.issuer).map_err(failed("sign a certificate"))?;
        Ok(certificate.der().clone())
    }
}

/// A new key, and the request with which its owner asks for a certificate.
///
/// # Errors
/// When the system has no randomness.
pub fn request() -> Result<(PrivateKeyDer<'static>, Vec<u8>), CaError> {
    let key = KeyPair::generate().map_err(failed("make a key"))?;
    let request = CertificateParams::default().serialize_request(&key).map_err(failed("make a certificate request"))?;
    Ok((PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())), request.der().to_vec()))
}

/// The request with which the owner of `key` asks for a new certificate.
///
/// # Errors
/// When the key is damaged.
pub fn request_for(key: &PrivateKeyDer<'static>) -> Result<Vec<u8>, CaError> {
    let key = KeyPair::try_from(key).map_err(failed("read a key"))?;
    let request = CertificateParams::default().serialize_request(&key).map_err(failed("make a certificate request"))?;
    Ok(request.der().to_vec())
}

fn params(subject: &Subject) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.identity.common_name.as_str());
    for organization in &subject.identity.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    if subject.member {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        for name in std::iter::once(LINK_NAME).chain(subject.names.iter().map(String::as_str)) {
            let name = name.try_into().map_err(failed("use a DNS name"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(subject.addresses.iter().copied().map(SanType::IpAddress));
    }
    set_validity(&mut params, subject.validity);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + now.saturating_sub(limits::CLOCK_SLACK);
    params.not_after = epoch + (now + validity);
}
