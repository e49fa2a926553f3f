//! Manifests: small JSON documents in the cluster's store, found by tag or by digest.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use shoal_images::blobs::Digest;
use shoal_link::http::Body;

use crate::catalog::{manifest_key, manifests_prefix, tag_key, tags_prefix};
use crate::error::Problem;
use crate::{Registry, limits, respond, route};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Registry {
    pub(crate) async fn manifest(
        &self,
        name: &str,
        reference: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        match *request.method() {
            Method::GET | Method::HEAD => self.read_manifest(name, reference).await,
            Method::PUT => self.store_manifest(name, reference, request).await,
            Method::DELETE => self.delete_manifest(name, reference).await,
            _ => Err(Problem::unsupported("a manifest takes GET, HEAD, PUT and DELETE")),
        }
    }

    async fn read_manifest(&self, name: &str, reference: &str) -> Result<Response<Body>, Problem> {
        let unknown = || Problem::manifest_unknown(name, reference);
        let digest = self.resolve(name, reference).await?.ok_or_else(unknown)?;
        let record = self.catalog.get(manifest_key(name, &digest)).await?.ok_or_else(unknown)?;
        let (media_type, document) = split(&record);
        let mut response = respond::bytes(StatusCode::OK, &media_type, document);
        let value = digest.parse().map_err(|_| unknown())?;
        response.headers_mut().insert("docker-content-digest", value);
        Ok(response)
    }

    /// The digest that `reference`, a tag or a digest, stands for.
    async fn resolve(&self, name: &str, reference: &str) -> Result<Option<String>, Problem> {
        if reference.contains(':') {
            let digest = Digest::parse(reference).map_err(|error| Problem::digest_invalid(error.to_string()))?;
            return Ok(Some(digest.to_string()));
        }
        if !route::is_tag(reference) {
            return Err(Problem::tag_invalid(reference));
        }
        let value = self.catalog.get(tag_key(name, reference)).await?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    async fn store_manifest(
        &self,
        name: &str,
        reference: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let said =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_string);
        // Boxed, or the future that holds it could not be sent to another thread.
        let document: Body = Limited::new(request.into_body(), limits::MANIFEST_BYTES).boxed();
        let document = document.collect().await;
        let document = document
            .map_err(|_| Problem::too_large(format!("a manifest may have {} bytes at most", limits::MANIFEST_BYTES)))?
            .to_bytes();
        let manifest: Value =
            serde_json::from_slice(&document).map_err(|error| Problem::manifest_invalid(error.to_string()))?;
        let media_type = media_type(&manifest, said.as_deref())?;
        self.check_contents(name, &manifest).await?;

        let digest = Digest::of(&document).to_string();
        let record = [media_type.as_bytes(), b"\n", &document].concat();
        let mut changes = vec![(manifest_key(name, &digest), Some(Bytes::from(record)))];
        if reference.contains(':') {
            if reference != digest {
                return Err(Problem::digest_invalid(format!("the manifest's digest is {digest}, not {reference}")));
            }
        } else if route::is_tag(reference) {
            changes.push((tag_key(name, reference), Some(Bytes::from(digest.clone()))));
        } else {
            return Err(Problem::tag_invalid(reference));
        }
        self.catalog.write(changes).await?;

        let mut response = respond::empty(StatusCode::CREATED)
            .header(header::LOCATION, format!("/v2/{name}/manifests/{digest}"))
            .header("docker-content-digest", &digest);
        if let Some(subject) = manifest.pointer("/subject/digest").and_then(Value::as_str) {
            response = response.header("oci-subject", subject);
        }
        response.body(respond::no_body()).map_err(|error| Problem::manifest_invalid(error.to_string()))
    }

    /// All that a manifest names must have been pushed before it and be on a second server, so that an image that resolves can be
    /// pulled, whichever server is lost.
    async fn check_contents(&self, name: &str, manifest: &Value) -> Result<(), Problem> {
        let mut held = Vec::new();
        for descriptor in manifest["layers"].as_array().into_iter().flatten().chain(manifest.get("config")) {
            let text =
                descriptor["digest"].as_str().ok_or_else(|| Problem::manifest_invalid("a descriptor has no digest"))?;
            let digest = Digest::parse(text).map_err(|error| Problem::manifest_invalid(error.to_string()))?;
            // Layers with URLs of their own are not ours to hold.
            if descriptor.get("urls").is_none() {
                held.push(digest);
            }
        }
        futures_util::future::try_join_all(held.iter().map(|digest| self.check_blob(digest))).await?;
        for descriptor in manifest["manifests"].as_array().into_iter().flatten() {
            let text =
                descriptor["digest"].as_str().ok_or_else(|| Problem::manifest_invalid("a descriptor has no digest"))?;
            if self.catalog.get(manifest_key(name, text)).await?.is_none() {
                return Err(Problem::manifest_blob_unknown(text));
            }
        }
        Ok(())
    }

    async fn check_blob(&self, digest: &Digest) -> Result<(), Problem> {
        if self.local_blob(digest).await?.is_none() || !self.hold(digest)? {
            return Err(Problem::manifest_blob_unknown(&digest.to_string()));
        }
        self.replicate(digest).await
    }

    /// A tag is only untagged; a digest goes with all its tags.
    async fn delete_manifest(&self, name: &str, reference: &str) -> Result<Response<Body>, Problem> {
        let unknown = || Problem::manifest_unknown(name, reference);
        let digest = self.resolve(name, reference).await?.ok_or_else(unknown)?;
        let mut changes = Vec::new();
        if reference.contains(':') {
            self.catalog.get(manifest_key(name, &digest)).await?.ok_or_else(unknown)?;
            changes.push((manifest_key(name, &digest), None));
            for (key, value) in self.catalog.list(tags_prefix(name)).await? {
                if value == digest.as_bytes() {
                    changes.push((key, None));
                }
            }
        } else {
            changes.push((tag_key(name, reference), None));
        }
        self.catalog.write(changes).await?;
        Ok(respond::empty(StatusCode::ACCEPTED).body(respond::no_body()).expect("the parts are valid"))
    }

    /// The manifests of a repository whose subject is `digest`, as an index.
    pub(crate) async fn referrers(&self, name: &str, digest: &str, uri: &Uri) -> Result<Response<Body>, Problem> {
        let wanted = respond::query(uri, "artifactType");
        let mut rows = Vec::new();
        for (key, record) in self.catalog.list(manifests_prefix(name)).await? {
            let (media_type, document) = split(&record);
            let Ok(manifest) = serde_json::from_slice::<Value>(&document) else { continue };
            if manifest.pointer("/subject/digest").and_then(Value::as_str) != Some(digest) {
                continue;
            }
            let artifact_type = manifest["artifactType"].as_str().or(manifest["config"]["mediaType"].as_str());
            if wanted.is_some() && wanted.as_deref() != artifact_type {
                continue;
            }
            let own = key.strip_prefix(&manifests_prefix(name)).unwrap_or_default();
            rows.push(json!({
                "mediaType": media_type, "size": document.len(), "digest": own,
                "artifactType": artifact_type, "annotations": manifest["annotations"],
            }));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows});
        let mut response = respond::bytes(StatusCode::OK, INDEX, index.to_string());
        if wanted.is_some() {
            response.headers_mut().insert("oci-filters-applied", header::HeaderValue::from_static("artifactType"));
        }
        Ok(response)
    }
}

/// The media type that the document names, which must agree with the one the request names.
fn media_type(manifest: &Value, said: Option<&str>) -> Result<String, Problem> {
    if manifest["schemaVersion"] != 2 {
        return Err(Problem::manifest_invalid("schemaVersion must be 2"));
    }
    let own = manifest["mediaType"].as_str();
    match (own, said) {
        (Some(own), Some(said)) if own != said => Err(Problem::manifest_invalid(format!(
            "the manifest's mediaType is {own:?}, the request's Content-Type {said:?}"
        ))),
        (Some(media_type), _) | (None, Some(media_type)) if media_type.contains('\n') => {
            Err(Problem::manifest_invalid("bad media type"))
        }
        (Some(media_type), _) | (None, Some(media_type)) => Ok(media_type.to_string()),
        (None, None) => Ok(if manifest.get("manifests").is_some() { INDEX } else { MANIFEST }.to_string()),
    }
}

/// The media type and the document of a stored manifest.
pub(crate) fn split(record: &Bytes) -> (String, Bytes) {
    let end = record.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let media_type = String::from_utf8_lossy(&record[..end]).into_owned();
    (media_type, record.slice((end + 1).min(record.len())..))
}
