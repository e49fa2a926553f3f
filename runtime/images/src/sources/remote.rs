//! Any other registry of the OCI distribution API, by HTTPS; by plain HTTP only on this machine.

use std::net::IpAddr;
use std::sync::OnceLock;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;

use super::{BoxError, Content, SourceError};
use crate::blobs::Digest;
use crate::credentials::Credential;
use crate::limits::{CONNECT_TIMEOUT, DOCUMENT_BYTES, READ_TIMEOUT};
use crate::media;

/// Clients of those who have no credential, made when they are first needed: most workers never ask another registry.
#[derive(Default)]
pub(crate) struct Remotes {
    encrypted: OnceLock<oci_client::Client>,
    plain: OnceLock<oci_client::Client>,
}

impl Remotes {
    /// The registry at `host`.
    ///
    /// A client keeps the tokens that it got, so whoever has a credential has a client of their own: nobody is let in on another's.
    pub(crate) fn open(&self, host: &str, credential: Option<&Credential>) -> Result<Remote, SourceError> {
        let host = host.to_string();
        let (place, protocol) = match is_this_machine(&host) {
            true => (&self.plain, ClientProtocol::Http),
            false => (&self.encrypted, ClientProtocol::Https),
        };
        if let Some(Credential { username, password }) = credential {
            let login = RegistryAuth::Basic(username.clone(), password.clone());
            return Ok(Remote { client: client(protocol)?, login, host });
        }
        let client = match place.get() {
            Some(client) => client.clone(),
            None => {
                let made = client(protocol)?;
                place.get_or_init(|| made).clone()
            }
        };
        Ok(Remote { client, login: RegistryAuth::Anonymous, host })
    }
}

fn client(protocol: ClientProtocol) -> Result<oci_client::Client, SourceError> {
    // An error means that the process has chosen a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig {
        protocol,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: concat!("shoal/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    oci_client::Client::try_from(config)
        .map_err(|error| SourceError::Failed(format!("no TLS client can be made: {error}")))
}

/// One registry, as one user or nobody.
pub(crate) struct Remote {
    client: oci_client::Client,
    login: RegistryAuth,
    host: String,
}

impl Remote {
    pub(crate) async fn manifest(&self, repository: &str, version: &str) -> Result<Bytes, SourceError> {
        let image = name(&self.host, repository, version);
        let (document, _) =
            self.client.pull_manifest_raw(&image, &self.login, &media::MANIFESTS).await.map_err(failed)?;
        if document.len() > DOCUMENT_BYTES {
            return Err(SourceError::Failed(format!("the manifest has more than {DOCUMENT_BYTES} bytes")));
        }
        Ok(document)
    }

    /// By the registry's own list, or where it has none the index under the tag that stands for one.
    pub(crate) async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Bytes, SourceError> {
        let image = name(&self.host, repository, &digest.to_string());
        self.client.store_auth_if_needed(image.resolve_registry(), &self.login).await;
        let index = self.client.pull_referrers(&image, None).await.map_err(failed)?;
        serde_json::to_vec(&index).map(Bytes::from).map_err(|error| SourceError::Failed(error.to_string()))
    }

    pub(crate) async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        from: u64,
    ) -> Result<(Content, u64), SourceError> {
        let digest = digest.to_string();
        let image = name(&self.host, repository, &digest);
        self.client.store_auth_if_needed(image.resolve_registry(), &self.login).await;
        let (blob, begins) = if from == 0 {
            (self.client.pull_blob_stream(&image, digest.as_str()).await.map_err(failed)?, 0)
        } else {
            let found = self.client.pull_blob_stream_partial(&image, digest.as_str(), from, None).await;
            match found.map_err(failed)? {
                BlobResponse::Full(blob) => (blob, 0),
                BlobResponse::Partial(blob) => (blob, from),
            }
        };
        Ok((blob.stream.map_err(BoxError::from).boxed(), begins))
    }
}

/// Whether a registry's host, with or without a port, is this machine itself.
fn is_this_machine(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split(']')
            .next()
            .and_then(|text| text.parse().ok())
            .is_some_and(|address: IpAddr| address.is_loopback());
    }
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn name(host: &str, repository: &str, version: &str) -> oci_client::Reference {
    let (host, repository, version) = (host.to_string(), repository.to_string(), version.to_string());
    match version.contains(':') {
        true => oci_client::Reference::with_digest(host, repository, version),
        false => oci_client::Reference::with_tag(host, repository, version),
    }
}

fn failed(error: OciDistributionError) -> SourceError {
    match error {
        OciDistributionError::RequestError(error) => SourceError::Unreachable(chain(&error)),
        OciDistributionError::UnauthorizedError { .. } => {
            SourceError::Denied("it wants credentials, or others than those of imagePullSecrets".to_string())
        }
        OciDistributionError::AuthenticationFailure(reason) => SourceError::Denied(reason),
        OciDistributionError::ServerError { code: 404, .. } => SourceError::NotFound,
        OciDistributionError::ServerError { code: 401 | 403, message, .. } => SourceError::Denied(message),
        OciDistributionError::ServerError { code: 502..=504, message, .. } => SourceError::Unreachable(message),
        OciDistributionError::RegistryError { envelope, .. } => {
            let is = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
            use OciErrorCode::{
                BlobUnknown, Denied, ManifestUnknown, NameUnknown, NotFound, Toomanyrequests, Unauthorized,
            };
            if is(&[ManifestUnknown, NameUnknown, NotFound, BlobUnknown]) {
                SourceError::NotFound
            } else if is(&[Unauthorized, Denied]) {
                SourceError::Denied(envelope.to_string())
            } else if is(&[Toomanyrequests]) {
                SourceError::Unreachable(envelope.to_string())
            } else {
                SourceError::Failed(envelope.to_string())
            }
        }
        error => SourceError::Failed(error.to_string()),
    }
}

/// An error with all that it came from: the outermost alone says only that a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_a_failure_and_no_panic() {
        // With the first request by HTTPS the process's TLS provider is chosen.
        let registry = Remotes::default().open("registry.invalid", None).expect("a client");
        let error = registry.manifest("hello", "1").await.expect_err("no such host");
        assert!(matches!(error, SourceError::Unreachable(_) | SourceError::Failed(_)), "{error:?}");
    }

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.0.1.2", "[::1]:5000"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["ghcr.io", "localhost.example.com", "10.0.0.1:5000", "[::2]:5000", "127.0.0.1.example.com"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
