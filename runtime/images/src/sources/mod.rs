//! Where images come from: the cluster's own registry, reached however the embedder reaches it, and any registry by HTTPS.

mod cluster;
mod remote;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::Response;
use http_body_util::combinators::BoxBody;

use crate::blobs::Digest;
use crate::reference::{Reference, Registry};
pub(crate) use cluster::Cluster;
pub(crate) use remote::Remote;

/// What can go wrong on the way.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response.
pub type Body = BoxBody<Bytes, BoxError>;

/// The way to the cluster's own registry.
pub trait ClusterRegistry: Send + Sync + 'static {
    /// Sends a GET for `path`, which begins with `/v2/`, with this `Accept` header.
    ///
    /// An error means that no server answered, and that it may be tried again later; whatever a server answered is a response.
    fn get(&self, path: &str, accept: &str) -> BoxFuture<'_, Result<Response<Body>, BoxError>>;
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
    pub remote: Remote,
}

impl Sources {
    /// The manifest that the reference's version names, or, if `version` is given, another one of its repository. Not verified.
    pub(crate) async fn manifest(&self, reference: &Reference, version: &str) -> Result<Bytes, SourceError> {
        match &reference.registry {
            Registry::Cluster => self.cluster.manifest(&reference.repository, version).await,
            Registry::Remote(host) => self.remote.manifest(host, &reference.repository, version).await,
        }
    }

    /// A blob of the reference's repository.
    pub(crate) async fn blob(&self, reference: &Reference, digest: &Digest) -> Result<Content, SourceError> {
        match &reference.registry {
            Registry::Cluster => self.cluster.blob(&reference.repository, digest).await,
            Registry::Remote(host) => self.remote.blob(host, &reference.repository, digest).await,
        }
    }
}
