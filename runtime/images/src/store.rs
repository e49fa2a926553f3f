//! The images of one machine: resolve, fetch, verify, keep.
//!
//! A reference is resolved to a digest once and that is remembered; the module is a file named by its digest, shared by every image
//! that has it. Concurrent wishes for one module share one download.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;

use crate::blobs::{BlobStore, Digest, StoreError};
use crate::error::PullError;
use crate::image::{Image, PullPolicy};
use crate::limits::{DOCUMENT_BYTES, MODULE_BYTES};
use crate::manifest::{self, Descriptor, Document, Manifest, Settings};
use crate::records::{self, Record, Records};
use crate::reference::{Reference, Registry};
use crate::sources::{Cluster, ClusterRegistry, Remote, SourceError, Sources};
use crate::turns::Turns;

/// The images of this machine.
pub struct ImageStore {
    blobs: BlobStore,
    records: Records,
    sources: Sources,
    turns: Turns,
}

impl ImageStore {
    /// Opens the folder, making it if it is missing. `cluster` is the way to the cluster's own registry.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(directory: &Path, cluster: Arc<dyn ClusterRegistry>) -> io::Result<Self> {
        Ok(Self {
            blobs: BlobStore::open(directory.join("blobs"))?,
            records: Records::open(directory.join("resolved"))?,
            sources: Sources { cluster: Cluster(cluster), remote: Remote::default() },
            turns: Turns::default(),
        })
    }

    /// The image that `text` names, fetched if `policy` or its absence asks for it.
    ///
    /// With [`PullPolicy::Always`] and no registry to be reached, what the tag was last resolved to is good enough: a worker
    /// that is cut off goes on with what it has. Cancel safe: nothing half-fetched stays.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn image(&self, text: &str, policy: PullPolicy) -> Result<Image, PullError> {
        let reference = Reference::parse(text)?;
        let must_resolve = policy == PullPolicy::Always && reference.digest.is_none();
        match self.known(&reference) {
            Some(image) if !must_resolve => return Ok(image),
            None if policy == PullPolicy::Never => return Err(PullError::NeverPull { image: text.to_string() }),
            _ => {}
        }
        let _turn = self.turns.take(&reference.to_string()).await;
        let known = self.known(&reference);
        if !must_resolve && let Some(image) = known {
            return Ok(image);
        }
        match (self.fetch(&reference).await, known) {
            (Err(PullError::Unreachable { registry, reason, .. }), Some(image)) => {
                tracing::warn!(
                    image = text,
                    registry,
                    reason,
                    "a registry cannot be reached: the image is what it was"
                );
                Ok(image)
            }
            (result, _) => result,
        }
    }

    /// What is here of the reference, whole.
    fn known(&self, reference: &Reference) -> Option<Image> {
        let record = self.records.load(&reference.to_string())?;
        let module = Digest::parse(&record.module).ok()?;
        let path = self.blobs.get(&module)?;
        let settings = Settings { entrypoint: record.entrypoint, environment: record.environment };
        image(reference, Digest::parse(&record.digest).ok()?, module, path, settings, false).ok()
    }

    async fn fetch(&self, reference: &Reference) -> Result<Image, PullError> {
        let fetch = Fetch { store: self, reference };
        let (digest, manifest) = fetch.manifest().await?;
        let config = match manifest.wanted_config() {
            Some(descriptor) => Some(fetch.document(descriptor).await?),
            None => None,
        };
        let not_wasm = |found: String| PullError::NotWasm { image: reference.to_string(), found };
        let layer = manifest.module(config.as_ref()).map_err(not_wasm)?;
        let settings = manifest.settings(config.as_ref()).map_err(not_wasm)?;
        let module = layer.digest().map_err(|reason| fetch.broken(reason))?;
        let was_fetched = fetch.module(layer, &module).await?;

        let record = Record {
            version: records::VERSION,
            reference: reference.to_string(),
            digest: digest.to_string(),
            module: module.to_string(),
            entrypoint: settings.entrypoint.clone(),
            environment: settings.environment.clone(),
        };
        let records = self.records.clone();
        let saved = tokio::task::spawn_blocking(move || records.save(&record)).await;
        saved.map_err(io::Error::other).and_then(|saved| saved).map_err(|error| fetch.disk(&error))?;
        let path = self.blobs.get(&module).ok_or_else(|| fetch.disk(&"the module's file is gone"))?;
        image(reference, digest, module, path, settings, was_fetched).map_err(|error| fetch.disk(&error))
    }
}

fn image(
    reference: &Reference,
    digest: Digest,
    module: Digest,
    path: PathBuf,
    Settings { entrypoint, environment }: Settings,
    was_fetched: bool,
) -> io::Result<Image> {
    let size_bytes = std::fs::metadata(&path)?.len();
    Ok(Image { reference: reference.clone(), digest, module, path, size_bytes, entrypoint, environment, was_fetched })
}

/// One wish, under way.
struct Fetch<'a> {
    store: &'a ImageStore,
    reference: &'a Reference,
}

impl Fetch<'_> {
    /// The digest of what the reference names, and the manifest that it leads to.
    async fn manifest(&self) -> Result<(Digest, Manifest), PullError> {
        let (digest, document) = self.verified(&self.reference.version()).await?;
        let manifest = match manifest::read(&document).map_err(|reason| self.broken(reason))? {
            Document::Manifest(manifest) => manifest,
            Document::Index(entries) => {
                let not_wasm = |found| PullError::NotWasm { image: self.reference.to_string(), found };
                let chosen = manifest::choose(&entries).map_err(not_wasm)?;
                let (_, document) = self.verified(&chosen.digest).await?;
                match manifest::read(&document).map_err(|reason| self.broken(reason))? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => return Err(self.broken("an index leads to another index".to_string())),
                }
            }
        };
        Ok((digest, manifest))
    }

    /// A manifest; if `version` is a digest, it is the digest of what came.
    async fn verified(&self, version: &str) -> Result<(Digest, Bytes), PullError> {
        let document =
            self.store.sources.manifest(self.reference, version).await.map_err(|error| self.refused(error))?;
        let digest = Digest::of(&document);
        if version.contains(':') && version != digest.to_string() {
            return Err(
                self.broken(format!("the registry sent a manifest with the digest {digest} in place of {version}"))
            );
        }
        Ok((digest, document))
    }

    /// A small blob that is JSON.
    async fn document(&self, descriptor: &Descriptor) -> Result<Value, PullError> {
        let expected = descriptor.digest().map_err(|reason| self.broken(reason))?;
        let mut content =
            self.store.sources.blob(self.reference, &expected).await.map_err(|error| self.refused(error))?;
        let mut bytes = Vec::new();
        while let Some(chunk) = content.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.broken(format!("reading {expected}: {error}")))?);
            if bytes.len() > DOCUMENT_BYTES {
                return Err(self.broken(format!("the configuration {expected} has more than {DOCUMENT_BYTES} bytes")));
            }
        }
        if Digest::of(&bytes) != expected {
            return Err(self.broken(format!("the registry sent other bytes in place of {expected}")));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| self.broken(format!("the configuration {expected} cannot be read: {error}")))
    }

    /// Sees to it that the module is here; answers whether it had to be fetched.
    async fn module(&self, layer: &Descriptor, digest: &Digest) -> Result<bool, PullError> {
        let _turn = self.store.turns.take(&digest.to_string()).await;
        if self.store.blobs.get(digest).is_some() {
            return Ok(false);
        }
        if layer.size > MODULE_BYTES {
            return Err(self.broken(format!("the module has {} bytes; at most {MODULE_BYTES} are taken", layer.size)));
        }
        let mut content = self.store.sources.blob(self.reference, digest).await.map_err(|error| self.refused(error))?;
        let mut writer = self.store.blobs.writer().await.map_err(|error| self.disk(&error))?;
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|error| self.broken(format!("reading {digest}: {error}")))?;
            if writer.size() + chunk.len() as u64 > layer.size {
                return Err(self.broken(format!("the registry sent more than the {} bytes of {digest}", layer.size)));
            }
            writer.write(&chunk).await.map_err(|error| self.disk(&error))?;
        }
        match writer.finish(digest).await {
            Ok(()) => Ok(true),
            Err(error @ StoreError::Mismatch { .. }) => Err(self.broken(error.to_string())),
            Err(StoreError::Io { source, .. }) => Err(self.disk(&source)),
        }
    }

    fn refused(&self, error: SourceError) -> PullError {
        let image = self.reference.to_string();
        let registry = match &self.reference.registry {
            Registry::Cluster => "the cluster's registry".to_string(),
            Registry::Remote(host) => host.clone(),
        };
        match error {
            SourceError::Unreachable(reason) => PullError::Unreachable { image, registry, reason },
            SourceError::NotFound => PullError::NotFound { image, registry },
            SourceError::Denied(reason) => PullError::Denied { image, registry, reason },
            SourceError::Failed(reason) => PullError::Broken { image, reason },
        }
    }

    fn broken(&self, reason: String) -> PullError {
        PullError::Broken { image: self.reference.to_string(), reason }
    }

    fn disk(&self, error: &dyn std::fmt::Display) -> PullError {
        PullError::Disk { image: self.reference.to_string(), reason: error.to_string() }
    }
}
