//! Blobs between servers: asked for where they are, and copied to where they are not.

use std::path::PathBuf;

use futures_util::future::{BoxFuture, join_all};
use http::{Method, Request, Response, StatusCode};
use shoal_link::http::Body;
use shoal_registry::{Copies, Peers, Registry};
use shoal_store::Member;

use crate::peers::OtherServers;
use crate::{internal, limits};

/// The other servers as the registry sees them.
pub(crate) struct RegistryPeers {
    pub servers: OtherServers,
}

impl Peers for RegistryPeers {
    fn fetch(&self, digest: String) -> BoxFuture<'_, Option<Response<Body>>> {
        Box::pin(async move {
            for server in self.servers.list() {
                let request = Request::get(internal::blob_path(&digest)).body(shoal_client::empty_body()).ok()?;
                match tokio::time::timeout(limits::FETCH_BLOB, self.servers.request(&server, request)).await {
                    Ok(Ok(response)) if response.status() == StatusCode::OK => return Some(response),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(server = server.name, %error, "a blob was not fetched from another server")
                    }
                    Err(_) => tracing::debug!(server = server.name, "another server did not answer for a blob in time"),
                }
            }
            None
        })
    }

    fn store(&self, digest: String, path: PathBuf) -> BoxFuture<'_, Copies> {
        Box::pin(async move {
            let others = self.servers.list();
            let stored = join_all(others.iter().map(|server| self.copy(server, &digest, &path))).await;
            Copies { others: others.len(), stored: stored.into_iter().filter(|done| *done).count() }
        })
    }
}

impl RegistryPeers {
    async fn copy(&self, server: &Member, digest: &str, path: &std::path::Path) -> bool {
        let copied = async {
            let look = Request::head(internal::blob_path(digest)).body(shoal_client::empty_body());
            let there = self.servers.request(server, look.map_err(|error| error.to_string())?).await?;
            if there.status() == StatusCode::OK {
                return Ok(());
            }
            let body = Registry::file_body(path).await.map_err(|error| error.to_string())?;
            let request = Request::builder().method(Method::PUT).uri(internal::blob_path(digest)).body(body);
            let response = self.servers.request(server, request.map_err(|error| error.to_string())?).await?;
            if response.status().is_success() { Ok(()) } else { Err(format!("it answered {}", response.status())) }
        };
        match tokio::time::timeout(limits::STORE_BLOB, copied).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(server = server.name, %error, "a blob was not copied to another server");
                false
            }
            Err(_) => {
                tracing::warn!(server = server.name, "another server did not store a blob in time");
                false
            }
        }
    }
}
