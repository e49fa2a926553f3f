//! The other servers' copies of blobs: a push is on more than one disk before it is acknowledged, and any server can answer.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use shoal_images::blobs::Digest;
use shoal_link::http::Body;

use crate::blob::file_body;
use crate::error::Problem;
use crate::{Registry, respond, upload};

/// The other servers, as the registry needs them.
pub trait Peers: Send + Sync + 'static {
    /// A GET of `/shoal/v1/blobs/<digest>` at each of the others, until one answers 200.
    fn fetch(&self, digest: String) -> BoxFuture<'_, Option<Response<Body>>>;

    /// A HEAD of `/shoal/v1/blobs/<digest>` at all others at once, and to those that do not have it a PUT with the file at `path`
    /// ([`Registry::file_body`] makes the bodies); answers how many others there are and how many have it now.
    fn store(&self, digest: String, path: PathBuf) -> BoxFuture<'_, Copies>;
}

/// How far a blob was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// The other servers of the cluster, reachable or not.
    pub others: usize,
    /// Those that have the blob durably.
    pub stored: usize,
}

/// A cluster of one server.
pub struct NoPeers;

impl Peers for NoPeers {
    fn fetch(&self, _digest: String) -> BoxFuture<'_, Option<Response<Body>>> {
        Box::pin(async { None })
    }

    fn store(&self, _digest: String, _path: PathBuf) -> BoxFuture<'_, Copies> {
        Box::pin(async { Copies { others: 0, stored: 0 } })
    }
}

impl Registry {
    /// The file at `path` as a streamed body, for a [`Peers`] implementation.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn file_body(path: &std::path::Path) -> std::io::Result<Body> {
        let length = tokio::fs::metadata(path).await?.len();
        file_body(path, 0, length).await
    }

    /// The path of `digest` on this server, fetched from another server first if it is only there.
    pub(crate) async fn local_blob(&self, digest: &Digest) -> Result<Option<PathBuf>, Problem> {
        if let Some(path) = self.blobs.get(digest) {
            return Ok(Some(path));
        }
        let Some(response) = self.peers.fetch(digest.to_string()).await else { return Ok(None) };
        let mut writer =
            self.blobs.writer().await.map_err(|error| Problem::internal("begin a copy of a blob", &error))?;
        upload::append_body(&mut writer, response.into_body()).await?;
        writer.finish(digest).await.map_err(|error| Problem::internal("copy a blob from another server", &error))?;
        Ok(self.blobs.get(digest))
    }

    /// Sees to it that the other servers have a blob that is here; fails unless it is on another disk, where there is another server.
    ///
    /// A blob that was here before may be here alone: the push that brought it may have failed at this very step.
    pub(crate) async fn replicate(&self, digest: &Digest) -> Result<(), Problem> {
        let path = self.blobs.get(digest).ok_or_else(|| Problem::blob_unknown(&digest.to_string()))?;
        let copies = self.peers.store(digest.to_string(), path).await;
        if copies.others > 0 && copies.stored == 0 {
            let message = format!("none of the other {} servers answered", copies.others);
            return Err(Problem::internal("store the blob on a second server", &message));
        }
        Ok(())
    }

    pub(crate) async fn answer_peer(&self, request: Request<Body>) -> Result<Response<Body>, Problem> {
        let text = request.uri().path().strip_prefix("/shoal/v1/blobs/").ok_or_else(Problem::not_found)?;
        let digest = Digest::parse(text).map_err(|error| Problem::digest_invalid(error.to_string()))?;
        match *request.method() {
            Method::HEAD => {
                let status = if self.hold(&digest)? { StatusCode::OK } else { StatusCode::NOT_FOUND };
                Ok(respond::empty(status).body(respond::no_body()).expect("the parts are valid"))
            }
            Method::GET => match self.blobs.get(&digest) {
                None => Err(Problem::blob_unknown(text)),
                Some(path) => {
                    let body =
                        Self::file_body(&path).await.map_err(|error| Problem::internal("read a blob", &error))?;
                    Ok(Response::new(body))
                }
            },
            Method::PUT => {
                if !self.hold(&digest)? {
                    let mut writer = self
                        .blobs
                        .writer()
                        .await
                        .map_err(|error| Problem::internal("begin a copy of a blob", &error))?;
                    upload::append_body(&mut writer, request.into_body()).await?;
                    writer.finish(&digest).await.map_err(|error| Problem::digest_invalid(error.to_string()))?;
                }
                Ok(respond::empty(StatusCode::CREATED).body(respond::no_body()).expect("the parts are valid"))
            }
            _ => Err(Problem::unsupported("blobs are read and stored here, nothing else")),
        }
    }
}
