//! Certificates that renew themselves: after two thirds of its life, a process asks for a new one with the same key.
//!
//! Who signs is the caller's to say: a server signs for itself, a worker asks a server over the link, where its present
//! certificate says who it is. Connections go on; new handshakes show the new certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::identity::{IdentityError, IdentitySource};
use crate::{ca, limits};

/// The path at which a member asks a server for a new certificate, by POST over the link: a [`RenewRequest`] in JSON,
/// answered by a [`RenewReply`].
pub const PATH: &str = "/shoal/v1/certificate";

/// What a member says that wants a new certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewRequest {
    /// Its certificate request (PKCS #10, DER).
    pub request: Vec<u8>,
}

/// What it gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewReply {
    /// Its new certificate (DER).
    pub certificate: Vec<u8>,
}

/// A certificate was not renewed; the old one stays in use.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The request could not be made.
    #[error(transparent)]
    Request(#[from] ca::CaError),
    /// Nobody signed it.
    #[error("it was not signed: {0}")]
    Unsigned(String),
    /// The new one cannot be kept.
    #[error(transparent)]
    Save(#[from] IdentityError),
}

/// Keeps the certificate of `source`, whose files are `NAME.*` in `directory`, fresh for ever, as far as `sign` does its part:
/// it takes a request in DER and answers a certificate in DER, or why there is none.
pub async fn keep_fresh<F, R>(source: Arc<IdentitySource>, directory: PathBuf, name: &'static str, sign: F)
where
    F: Fn(Vec<u8>) -> R,
    R: Future<Output = Result<Vec<u8>, String>>,
{
    loop {
        let left = due_in(source.current().validity(), Timestamp::now());
        if !left.is_zero() {
            // Not further than a day: clocks are set, and machines sleep.
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            continue;
        }
        match renew(&source, &directory, name, &sign).await {
            Ok(()) => tracing::info!("the certificate of this process was renewed"),
            Err(error) => {
                tracing::warn!(%error, "the certificate of this process was not renewed");
                tokio::time::sleep(limits::RENEW_RETRY).await;
            }
        }
    }
}

/// Renews the certificate of `source` now.
///
/// # Errors
/// [`RenewError`]; nothing has changed then.
pub async fn renew<F, R>(
    source: &IdentitySource,
    directory: &std::path::Path,
    name: &str,
    sign: F,
) -> Result<(), RenewError>
where
    F: Fn(Vec<u8>) -> R,
    R: Future<Output = Result<Vec<u8>, String>>,
{
    let identity = source.current();
    let certificate = sign(ca::request_for(identity.key())?).await.map_err(RenewError::Unsigned)?;
    let renewed = identity.renewed(CertificateDer::from(certificate));
    if renewed.subject() != identity.subject() {
        return Err(RenewError::Unsigned("the certificate that came back is for somebody else".to_string()));
    }
    renewed.save(directory, name)?;
    source.replace(renewed);
    Ok(())
}

/// How often a certificate is looked at at least.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How long until a certificate is due.
fn due_in(validity: Option<(Timestamp, Timestamp)>, now: Timestamp) -> Duration {
    let Some((from, until)) = validity else { return Duration::ZERO };
    let (part, whole) = limits::RENEW_AFTER;
    let life = until.as_second() - from.as_second();
    let due = from.as_second() + life * i64::from(part) / i64::from(whole);
    Duration::from_secs(u64::try_from(due - now.as_second()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_after_two_thirds_of_its_life() {
        let second = |second| Timestamp::from_second(second).expect("a second");
        let validity = Some((second(1_000), second(4_000)));
        assert_eq!(due_in(validity, second(1_000)), Duration::from_secs(2_000));
        assert_eq!(due_in(validity, second(3_500)), Duration::ZERO);
        assert_eq!(due_in(None, second(0)), Duration::ZERO);
    }
}
