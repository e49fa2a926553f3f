//! The registry built into the cluster: the OCI distribution API in front of content-addressed files.
//!
//! Blobs are files, replicated between the servers; tags and manifests are small and live in the cluster's store, behind
//! [`Catalog`]. Who may call is decided before a request comes here ([`Access`]); TLS and links are not known here either.
//! Start with `route`, the paths, then `manifest`, `upload` and `blob`, what they do; `collect`
//! removes what nothing names any more.

mod blob;
mod catalog;
mod collect;
mod error;
mod limits;
mod manifest;
mod peers;
mod respond;
mod route;
mod tags;
mod upload;

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use shoal_link::http::Body;

pub use catalog::{Catalog, CatalogError};
pub use collect::{CollectError, Collected};
pub use peers::{Copies, NoPeers, Peers};
pub use shoal_images::blobs::BlobStore;

use error::Problem;
use route::Route;
use upload::Uploads;

/// The repository that a path under `/v2/` names, if it names one.
pub fn repository(path: &str) -> Option<String> {
    match route::parse(&Method::POST, path).ok()? {
        Route::Base | Route::Repositories => None,
        Route::Tags { name }
        | Route::Manifest { name, .. }
        | Route::Referrers { name, .. }
        | Route::Blob { name, .. }
        | Route::StartUpload { name }
        | Route::Upload { name, .. } => Some(name),
    }
}

/// What the caller of a request may do, as the server that authenticated it decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only reading: what a node or a plain user may do.
    Pull,
    /// Reading and writing.
    Push,
}

/// One server's registry. Cheap to clone; all clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    blobs: Arc<BlobStore>,
    catalog: Arc<dyn Catalog>,
    peers: Arc<dyn Peers>,
    uploads: Arc<Uploads>,
    /// Taken while a file is looked at and removed, or looked at and kept.
    holding: Arc<Mutex<()>>,
}

impl Registry {
    /// A registry over `blobs` (this server's files), `catalog` (the cluster's tags and manifests) and `peers` (the other
    /// servers, for blobs that are not here).
    pub fn new(blobs: Arc<BlobStore>, catalog: Arc<dyn Catalog>, peers: Arc<dyn Peers>) -> Self {
        Self { blobs, catalog, peers, uploads: Arc::default(), holding: Arc::default() }
    }

    /// Answers one request under `/v2/`, the OCI distribution API 1.1.
    ///
    /// Never fails: errors are answered in the API's own form.
    pub async fn handle(&self, request: Request<Body>, access: Access) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        let mut response = self.answer(request, access).await.unwrap_or_else(Problem::into_response);
        // HTTP/1.1 leaves a body out by itself, HTTP/2 would send it.
        if is_head {
            *response.body_mut() = respond::no_body();
        }
        response
    }

    /// Answers another server's request for `/shoal/v1/blobs/<digest>`: GET reads this server's own copy, HEAD keeps it for a
    /// push that is under way if it is there, PUT stores one.
    ///
    /// The caller must have checked that a server of this cluster asks.
    pub async fn handle_peer(&self, request: Request<Body>) -> Response<Body> {
        match self.answer_peer(request).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        }
    }

    async fn answer(&self, request: Request<Body>, access: Access) -> Result<Response<Body>, Problem> {
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        if writes && access != Access::Push {
            return Err(Problem::denied(
                "this identity may pull images; to push or delete them it needs the verb push on images.registry.shoal.dev, \
                 which the ClusterRole shoal:image-pusher has",
            ));
        }
        let route = route::parse(request.method(), request.uri().path())?;
        match route {
            Route::Base => Ok(respond::base()),
            Route::Repositories => self.repositories(request.uri()).await,
            Route::Tags { name } => self.tags(&name, request.uri()).await,
            Route::Manifest { name, reference } => self.manifest(&name, &reference, request).await,
            Route::Referrers { name, digest } => self.referrers(&name, &digest, request.uri()).await,
            Route::Blob { name, digest } => self.blob(&name, &digest, request, access).await,
            Route::StartUpload { name } => self.start_upload(&name, request).await,
            Route::Upload { name, session } => self.upload(&name, &session, request).await,
        }
    }
}
