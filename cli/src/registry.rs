//! The cluster's registry, as any OCI client sees it. A push is the blobs that are missing, then the manifest.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use shoal_client::{Client, bytes_body, empty_body};
use shoal_images::{Digest, Reference, Registry, artifact};

/// What was pushed.
#[derive(Debug)]
pub struct Pushed {
    /// The image to put into a Pod.
    pub image: String,
    /// The manifest's digest.
    pub digest: String,
}

/// Pushes `wasm` as `name`, which may have a tag.
///
/// # Errors
/// When the bytes are no WebAssembly, the name is no name, or the registry refuses.
pub async fn push(client: &Client, wasm: &[u8], name: &str) -> anyhow::Result<Pushed> {
    let reference: Reference = Reference::parse(name)?;
    anyhow::ensure!(
        reference.registry == Registry::Cluster,
        "{name:?} names another registry: `shoal push` pushes to the cluster's own, so leave the host out"
    );
    anyhow::ensure!(reference.digest.is_none(), "{name:?} has a digest: say a name and a tag");
    let artifact = artifact(wasm)?;
    let (repository, tag) = (&reference.repository, reference.tag.as_deref().unwrap_or("latest"));
    let config = Bytes::from(artifact.config.clone());
    for (digest, content) in [(Digest::of(wasm), Bytes::copy_from_slice(wasm)), (Digest::of(&config), config)] {
        push_blob(client, repository, &digest, content).await?;
    }
    let path = format!("/v2/{repository}/manifests/{tag}");
    let manifest = Bytes::from(artifact.manifest.clone());
    let digest = Digest::of(&manifest).to_string();
    let request = Request::builder()
        .method(Method::PUT)
        .uri(path)
        .header(header::CONTENT_TYPE, shoal_images::media::MANIFEST)
        .header(header::CONTENT_LENGTH, manifest.len())
        .body(bytes_body(manifest))?;
    expect(client, request, StatusCode::CREATED).await.context("the registry did not take the manifest")?;
    Ok(Pushed { image: format!("{repository}:{tag}"), digest })
}

async fn push_blob(client: &Client, repository: &str, digest: &Digest, content: Bytes) -> anyhow::Result<()> {
    let path = format!("/v2/{repository}/blobs/{digest}");
    let there = client.raw(Request::head(path).body(empty_body())?).await?;
    if there.status().is_success() {
        return Ok(());
    }
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v2/{repository}/blobs/uploads/?digest={digest}"))
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, content.len())
        .body(bytes_body(content))?;
    expect(client, request, StatusCode::CREATED).await.context("the registry did not take the module")
}

/// A GET whose answer is wanted whole; none if there is no such thing.
///
/// # Errors
/// When the registry does not answer, or answers with an error.
pub async fn get(client: &Client, path: &str) -> anyhow::Result<Option<Response<Bytes>>> {
    let accept = shoal_images::media::MANIFESTS.join(", ");
    let request = Request::get(path).header(header::ACCEPT, accept).body(empty_body())?;
    let (parts, body) = client.raw(request).await?.into_parts();
    if parts.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let body = body.collect().await.map_err(|error| anyhow::anyhow!(error)).context("the answer broke off")?.to_bytes();
    anyhow::ensure!(parts.status == StatusCode::OK, refusal(parts.status, &body));
    Ok(Some(Response::from_parts(parts, body)))
}

/// Deletes the manifest or tag at `path`; answers whether there was one.
///
/// # Errors
/// When the registry does not answer, or refuses.
pub async fn delete(client: &Client, path: &str) -> anyhow::Result<bool> {
    let request = Request::delete(path).body(empty_body())?;
    let (parts, body) = client.raw(request).await?.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    match parts.status {
        StatusCode::ACCEPTED => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        status => anyhow::bail!(refusal(status, &body)),
    }
}

async fn expect(client: &Client, request: Request<shoal_client::Body>, wanted: StatusCode) -> anyhow::Result<()> {
    let response = client.raw(request).await?;
    let status = response.status();
    if status == wanted {
        return Ok(());
    }
    let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    anyhow::bail!(refusal(status, &body))
}

/// What the registry says in place of what was asked.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message =
        document.pointer("/errors/0/message").or(document.pointer("/message")).and_then(serde_json::Value::as_str);
    format!("it answered {status}: {}", message.unwrap_or(&String::from_utf8_lossy(body)))
}
