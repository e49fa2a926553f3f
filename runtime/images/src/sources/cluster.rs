//! The cluster's own registry, through the way that the embedder gives us.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, BodyStream, Limited};

use super::{Body, ClusterRegistry, Content, SourceError};
use crate::blobs::Digest;
use crate::limits::DOCUMENT_BYTES;
use crate::media;

pub(crate) struct Cluster(pub Arc<dyn ClusterRegistry>);

impl Cluster {
    pub(crate) async fn manifest(&self, repository: &str, version: &str) -> Result<Bytes, SourceError> {
        self.document(&format!("/v2/{repository}/manifests/{version}")).await
    }

    pub(crate) async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Bytes, SourceError> {
        self.document(&format!("/v2/{repository}/referrers/{digest}")).await
    }

    async fn document(&self, path: &str) -> Result<Bytes, SourceError> {
        let response = self.get(path, &media::MANIFESTS.join(", "), 0).await?;
        // Boxed, so that the compiler sees that the whole pull may move between threads.
        let document: BoxFuture<'static, _> = Box::pin(Limited::new(response.into_body(), DOCUMENT_BYTES).collect());
        let document = document.await;
        document
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| SourceError::Failed(format!("reading the manifest: {error}")))
    }

    pub(crate) async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        from: u64,
    ) -> Result<(Content, u64), SourceError> {
        let response = self.get(&format!("/v2/{repository}/blobs/{digest}"), "*/*", from).await?;
        let begins = if response.status() == StatusCode::PARTIAL_CONTENT { from } else { 0 };
        let frames = BodyStream::new(response.into_body());
        Ok((frames.try_filter_map(|frame| async move { Ok(frame.into_data().ok()) }).boxed(), begins))
    }

    async fn get(&self, path: &str, accept: &str, from: u64) -> Result<Response<Body>, SourceError> {
        let response = self.0.get(path, accept, from).await;
        let response = response.map_err(|error| SourceError::Unreachable(error.to_string()))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::PARTIAL_CONTENT if from > 0 => Ok(response),
            StatusCode::NOT_FOUND => Err(SourceError::NotFound),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(SourceError::Denied(response.status().to_string())),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Err(SourceError::Unreachable(response.status().to_string()))
            }
            status => Err(SourceError::Failed(format!("the registry answered {status}"))),
        }
    }
}
