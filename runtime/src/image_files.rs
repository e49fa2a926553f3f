//! Modules from the cluster's registry: fetched over the link, verified, kept by digest.
//!
//! What a reference was resolved to is remembered on disk, so that a worker starts its pods without any server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use shoal_client::empty_body;
use shoal_images::blobs::{BlobStore, Digest};
use shoal_network::Body;

use crate::guests::{ImageRequest, PrepareError, PullPolicy};
use crate::local_store::LocalStore;
use crate::uplink::Uplink;

/// Bytes of a manifest at most.
const MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// The kinds of manifests that we read.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// The media types of a layer that is a module.
const MODULES: [&str; 5] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.wasm.content.layer.v1",
];

/// The images of this worker.
pub struct ImageFiles {
    blobs: BlobStore,
    resolved: LocalStore,
    uplink: Uplink,
}

/// A module's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The module's digest.
    pub digest: String,
    /// Its file.
    pub path: PathBuf,
    /// The reference with the manifest's digest.
    pub image_id: String,
    /// Whether it had to be fetched.
    pub was_fetched: bool,
    /// Its bytes.
    pub size_bytes: u64,
}

/// What a reference was resolved to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Resolved {
    reference: String,
    manifest: String,
    module: String,
}

/// A reference to the cluster's registry: a name and a tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
}

const COLLECTION: &str = "resolved";

fn failed(message: String) -> PrepareError {
    PrepareError { reason: "ErrImagePull", message }
}

impl ImageFiles {
    /// Opens the files below `directory`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(directory: &Path, uplink: Uplink) -> std::io::Result<ImageFiles> {
        Ok(ImageFiles { blobs: BlobStore::open(directory.join("blobs"))?, resolved: LocalStore::open(directory)?, uplink })
    }

    /// The module of an image, fetched if the policy or its absence asks for it.
    ///
    /// # Errors
    /// With the reason for the pod's status and a message that names the cause.
    pub async fn get(&self, image: &ImageRequest) -> Result<Found, PrepareError> {
        let reference = Reference::parse(&image.reference)
            .map_err(|why| PrepareError { reason: "InvalidImageName", message: format!("Failed to apply default image tag {:?}: {why}", image.reference) })?;
        let known = self.known(&image.reference);
        let must_resolve = image.policy == PullPolicy::Always && !reference.is_pinned();
        match (known, image.policy) {
            (Some(found), _) if !must_resolve => Ok(found),
            (None, PullPolicy::Never) => {
                let message = format!("Container image {:?} is not present with pull policy of Never", image.reference);
                Err(PrepareError { reason: "ErrImageNeverPull", message })
            }
            (known, _) => match (self.fetch(&image.reference, &reference).await, known) {
                // No server answers: what is here is what ran before.
                (Err(_), Some(found)) if !self.uplink.is_connected() => Ok(found),
                (result, _) => result,
            },
        }
    }

    fn known(&self, reference: &str) -> Option<Found> {
        let resolved: Resolved = self.resolved.load(COLLECTION, reference).filter(|r: &Resolved| r.reference == reference)?;
        let path = self.blobs.get(&Digest::parse(&resolved.module).ok()?)?;
        found(&resolved, path, false)
    }

    async fn fetch(&self, text: &str, reference: &Reference) -> Result<Found, PrepareError> {
        let response = self.ask(&format!("/v2/{}/manifests/{}", reference.name, reference.version), MANIFESTS, text).await?;
        let bytes = read_manifest(response.into_body()).await.map_err(|error| failed(format!("{text}: reading the manifest: {error}")))?;
        let manifest_digest = Digest::of(&bytes).to_string();
        if reference.is_pinned() && reference.version != manifest_digest {
            return Err(failed(format!("{text}: the registry sent a manifest with digest {manifest_digest}")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| failed(format!("{text}: the manifest cannot be read: {error}")))?;
        let layer = manifest.layers.iter().find(|layer| MODULES.contains(&layer.media_type.as_str()));
        let Some(layer) = layer else {
            let kinds: BTreeMap<&str, ()> = manifest.layers.iter().map(|l| (l.media_type.as_str(), ())).collect();
            return Err(failed(format!("{text}: the image holds no WebAssembly module, only {:?}", kinds.into_keys().collect::<Vec<_>>())));
        };
        let digest = Digest::parse(&layer.digest).map_err(|error| failed(format!("{text}: {error}")))?;
        let was_fetched = self.blobs.get(&digest).is_none();
        if was_fetched {
            self.fetch_blob(text, reference, &digest).await?;
        }
        let path = self.blobs.get(&digest).ok_or_else(|| failed(format!("{text}: the module's file is gone")))?;
        let resolved = Resolved { reference: text.to_owned(), manifest: manifest_digest, module: digest.to_string() };
        if let Err(error) = self.resolved.save(COLLECTION, text, &resolved) {
            tracing::warn!(image = text, %error, "what an image was resolved to is not kept");
        }
        found(&resolved, path, was_fetched).ok_or_else(|| failed(format!("{text}: the module's file is gone")))
    }

    async fn fetch_blob(&self, text: &str, reference: &Reference, digest: &Digest) -> Result<(), PrepareError> {
        let response = self.ask(&format!("/v2/{}/blobs/{digest}", reference.name), "*/*", text).await?;
        let broken = |error: &dyn std::fmt::Display| failed(format!("{text}: fetching {digest}: {error}"));
        let mut writer = self.blobs.writer().await.map_err(|error| broken(&error))?;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.map_err(|error| broken(&error))?.into_data() {
                writer.write(&bytes).await.map_err(|error| broken(&error))?;
            }
        }
        writer.finish(digest).await.map_err(|error| broken(&error))
    }

    async fn ask(&self, path: &str, accept: &str, text: &str) -> Result<Response<Body>, PrepareError> {
        let request = Request::get(path).header(http::header::ACCEPT, accept).body(empty_body()).map_err(|error| failed(format!("{text}: {error}")))?;
        let response = self.uplink.request(request).await.map_err(|error| failed(format!("{text}: {error}")))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(failed(format!("{text}: not found in the cluster's registry"))),
            status => Err(failed(format!("{text}: the cluster's registry answered {status}"))),
        }
    }
}

async fn read_manifest(mut body: Body) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > MANIFEST_BYTES {
            return Err(format!("it is larger than {MANIFEST_BYTES} bytes"));
        }
    }
    Ok(bytes)
}

fn found(resolved: &Resolved, path: PathBuf, was_fetched: bool) -> Option<Found> {
    let size_bytes = std::fs::metadata(&path).ok()?.len();
    let name = Reference::parse(&resolved.reference).ok()?.name;
    Some(Found { digest: resolved.module.clone(), path, image_id: format!("{name}@{}", resolved.manifest), was_fetched, size_bytes })
}

impl Reference {
    /// `name[:tag][@digest]`; a name whose first part is a host is of another registry.
    fn parse(text: &str) -> Result<Reference, String> {
        let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = rest[slash..].split_once(':').map_or((rest, "latest"), |(last, tag)| (&rest[..slash + last.len()], tag));
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        let first = name.split('/').next().unwrap_or_default();
        if name.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost") {
            return Err(format!("registry {first} is not the cluster's"));
        }
        let is_tag = !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !name.split('/').all(is_part) || !is_tag {
            return Err("invalid reference format".to_owned());
        }
        let version = match digest {
            Some(digest) => Digest::parse(digest).map_err(|error| error.to_string())?.to_string(),
            None => tag.to_owned(),
        };
        Ok(Reference { name: name.to_owned(), version })
    }

    fn is_pinned(&self) -> bool {
        self.version.starts_with("sha256:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let of = |text: &str| Reference::parse(text).map(|r| (r.name, r.version)).ok();
        let is = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(of("hello:1"), is("hello", "1"));
        assert_eq!(of("hello"), is("hello", "latest"));
        assert_eq!(of("team/hello:v1.2"), is("team/hello", "v1.2"));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(of(&format!("hello:1@{digest}")), is("hello", &digest));
        for bad in ["", "Hello:1", "hello:", "hello:a b", "a//b", "hello@md5:1", "ghcr.io/a/b:1", "localhost:5000/a"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
