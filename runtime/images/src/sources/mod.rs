//! Where images come from: the cluster's own registry, reached however the embedder reaches it, and any registry by HTTPS.

mod cluster;
mod remote;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::Response;
use http_body_util::combinators::BoxBody;

use crate::blobs::Digest;
use crate::credentials::Credential;
use crate::reference::{Reference, Registry};
pub(crate) use cluster::Cluster;
pub(crate) use remote::{Remote, Remotes};

/// What can go wrong on the way.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response.
pub type Body = BoxBody<Bytes, BoxError>;

/// The way to the cluster's own registry.
pub trait ClusterRegistry: Send + Sync + 'static {
    /// Sends a GET for `path`, which begins with `/v2/`, with this `Accept` header, for what begins at byte `from` (a `Range`, unless that is 0).
    ///
    /// An error means that no server answered, and that it may be tried again later; whatever a server answered is a response.
    fn get(&self, path: &str, accept: &str, from: u64) -> BoxFuture<'_, Result<Response<Body>, BoxError>>;
}

/// The content of a blob, not verified yet.
pub(crate) type Content = BoxStream<'static, Result<Bytes, BoxError>>;

/// Why a registry gave nothing.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// It did not answer.
    Unreachable(String),
    /// It does not have it.
    NotFound,
    /// It does not give it to us.
    Denied(String),
    /// It answered with something else.
    Failed(String),
}

/// Every registry.
pub(crate) struct Sources {
    pub cluster: Cluster,
    pub remotes: Remotes,
}

impl Sources {
    /// The registry of `reference`, as one who has this credential sees it; the cluster's own asks for none.
    pub(crate) fn open(
        &self,
        reference: &Reference,
        credential: Option<&Credential>,
    ) -> Result<Source<'_>, SourceError> {
        match &reference.registry {
            Registry::Cluster => Ok(Source::Cluster(&self.cluster)),
            Registry::Remote(host) => self.remotes.open(host, credential).map(Source::Remote),
        }
    }
}

/// One registry.
pub(crate) enum Source<'a> {
    Cluster(&'a Cluster),
    Remote(Remote),
}

impl Source<'_> {
    /// The manifest of a repository that a tag or digest names. Not verified.
    pub(crate) async fn manifest(&self, repository: &str, version: &str) -> Result<Bytes, SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.manifest(repository, version).await,
            Self::Remote(remote) => remote.manifest(repository, version).await,
        }
    }

    /// The manifests that refer to one, as the bytes of an index. Not verified.
    pub(crate) async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Bytes, SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.referrers(repository, digest).await,
            Self::Remote(remote) => remote.referrers(repository, digest).await,
        }
    }

    /// A blob of a repository that is small enough to be held, verified.
    pub(crate) async fn small_blob(
        &self,
        repository: &str,
        digest: &Digest,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let (mut content, _) = self.blob(repository, digest, 0).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|error| SourceError::Failed(format!("reading {digest}: {error}")))?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit_bytes {
                return Err(SourceError::Failed(format!("{digest} has more than {limit_bytes} bytes")));
            }
        }
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(SourceError::Failed(format!("the registry sent other bytes in place of {digest}"))),
        }
    }

    /// A blob of a repository from this byte on, and where what comes begins: at 0 if the registry gives it whole.
    pub(crate) async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        from: u64,
    ) -> Result<(Content, u64), SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.blob(repository, digest, from).await,
            Self::Remote(remote) => remote.blob(repository, digest, from).await,
        }
    }
}
