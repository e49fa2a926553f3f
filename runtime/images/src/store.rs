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

use crate::blobs::{BlobStore, BlobWriter, Digest, StoreError};
use crate::credentials::{Credential, Keyring};
use crate::error::PullError;
use crate::image::{Image, PullPolicy};
use crate::layers::{self, Found, Hunt};
use crate::limits::{DOCUMENT_BYTES, FINGERPRINTS, LAYER_BYTES, MODULE_BYTES};
use crate::manifest::{self, Descriptor, Document, Manifest, Module, Settings};
use crate::records::{self, Record, Records};
use crate::reference::{Reference, Registry};
use crate::sources::{Cluster, ClusterRegistry, Remotes, Source, SourceError, Sources};
use crate::turns::Turns;

/// What is here of a reference.
struct Known {
    image: Image,
    /// The fingerprints of the credentials by which it was had.
    credentials: Vec<String>,
    /// The fingerprints of the keys that have signed it.
    signers: Vec<String>,
}

/// The images of this machine.
pub struct ImageStore {
    pub(crate) blobs: Arc<BlobStore>,
    pub(crate) records: Records,
    pub(crate) sources: Sources,
    pub(crate) turns: Turns,
}

impl ImageStore {
    /// Opens the folder, making it if it is missing. `cluster` is the way to the cluster's own registry.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(directory: &Path, cluster: Arc<dyn ClusterRegistry>) -> io::Result<Self> {
        Ok(Self {
            blobs: Arc::new(BlobStore::open(directory.join("blobs"))?),
            records: Records::open(directory.join("resolved"))?,
            sources: Sources { cluster: Cluster(cluster), remotes: Remotes::default() },
            turns: Turns::default(),
        })
    }

    /// The image that `text` names, fetched if `policy` or its absence asks for it, with what `keyring` has for its registry.
    ///
    /// With [`PullPolicy::IfNotPresent`] what is here is good enough for everybody, as it always was with the kubelet, whoever had the
    /// credentials to fetch it. With [`PullPolicy::Always`] the registry is asked each time, so that it decides who has the image;
    /// where it cannot be reached, what is here is good enough for those with a credential by which it was had before: a worker that is
    /// cut off goes on with what it has. Cancel safe: nothing half-fetched stays.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn image(&self, text: &str, policy: PullPolicy, keyring: &Keyring) -> Result<Image, PullError> {
        let reference = Reference::parse(text)?;
        // What a digest names never changes, but another registry may not give it to everybody.
        let is_settled = reference.digest.is_some() && reference.registry == Registry::Cluster;
        let must_resolve = policy == PullPolicy::Always && !is_settled;
        match self.known(&reference) {
            Some(known) if !must_resolve => return Ok(known.image),
            None if policy == PullPolicy::Never => return Err(PullError::NeverPull { image: text.to_string() }),
            _ => {}
        }
        let _turn = self.turns.take(&reference.to_string()).await;
        let known = self.known(&reference);
        if !must_resolve && let Some(known) = known {
            return Ok(known.image);
        }
        let credentials = keyring.credentials(&reference);
        match (self.fetch(&reference, &credentials, known.as_ref()).await, known) {
            (
                Err(PullError::Unreachable { registry, reason, .. }),
                Some(Known { image, credentials: known_by, .. }),
            ) if known_by.is_empty() || credentials.iter().any(|own| known_by.contains(&own.fingerprint())) => {
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

    /// Fetches it with the first of the credentials that the registry takes; without any if there are none.
    async fn fetch(
        &self,
        reference: &Reference,
        credentials: &[&Credential],
        known: Option<&Known>,
    ) -> Result<Image, PullError> {
        let Some((last, others)) = credentials.split_last() else {
            return self.fetch_as(reference, None, known).await;
        };
        for credential in others {
            match self.fetch_as(reference, Some(credential), known).await {
                Ok(image) => return Ok(image),
                Err(error) => tracing::debug!(%error, "an image is not to be had with one of several credentials"),
            }
        }
        self.fetch_as(reference, Some(last), known).await
    }

    /// What is here of the reference, whole.
    fn known(&self, reference: &Reference) -> Option<Known> {
        let record = self.records.load(&reference.to_string())?;
        let module = Digest::parse(&record.module).ok()?;
        let path = self.blobs.get(&module)?;
        let settings = Settings { entrypoint: record.entrypoint, environment: record.environment };
        let image = image(reference, Digest::parse(&record.digest).ok()?, module, path, settings, false).ok()?;
        Some(Known { image, credentials: record.credentials, signers: record.signers })
    }

    async fn fetch_as(
        &self,
        reference: &Reference,
        credential: Option<&Credential>,
        known: Option<&Known>,
    ) -> Result<Image, PullError> {
        let source = self.sources.open(reference, credential).map_err(|error| refused(reference, error))?;
        let fetch = Fetch { store: self, reference, source };
        let (digest, manifest) = fetch.manifest().await?;
        let config = match manifest.wanted_config() {
            Some(descriptor) => Some(fetch.document(descriptor).await?),
            None => None,
        };
        let not_wasm = |found: String| PullError::NotWasm { image: reference.to_string(), found };
        let found = manifest.module(config.as_ref()).map_err(not_wasm)?;
        let settings = manifest.settings(config.as_ref()).map_err(not_wasm)?;
        // Who had what the tag stood for before has not had this, and who signed that has not signed this.
        let known = known.filter(|known| known.image.digest == digest);
        let (module, was_fetched) = match (found, known) {
            (Module::Layer(layer), _) => {
                let module = layer.digest().map_err(|reason| fetch.broken(reason))?;
                let was_fetched = fetch.module(layer, &module).await?;
                (module, was_fetched)
            }
            (Module::File { .. }, Some(known)) => (known.image.module.clone(), false),
            (Module::File { path, layers }, None) => (fetch.file(path, &layers).await?, true),
        };
        let known_by = known.map_or(&[][..], |known| &known.credentials);
        let record = Record {
            version: records::VERSION,
            reference: reference.to_string(),
            digest: digest.to_string(),
            module: module.to_string(),
            entrypoint: settings.entrypoint.clone(),
            environment: settings.environment.clone(),
            credentials: credential.map(|own| with(known_by, own.fingerprint())).unwrap_or_default(),
            signers: known.map(|known| known.signers.clone()).unwrap_or_default(),
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

/// The fingerprints that are known with one more, the newest of them.
pub(crate) fn with(known: &[String], fingerprint: String) -> Vec<String> {
    let others: Vec<&String> = known.iter().filter(|other| **other != fingerprint).collect();
    let kept = others[others.len().saturating_sub(FINGERPRINTS - 1)..].iter().map(|other| (*other).clone());
    kept.chain([fingerprint]).collect()
}

/// How a download ended before its end.
enum Broke {
    /// It may be gone on with.
    Off(PullError),
    /// It may not.
    For(PullError),
}

/// One wish, under way.
struct Fetch<'a> {
    store: &'a ImageStore,
    reference: &'a Reference,
    source: Source<'a>,
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
            self.source.manifest(&self.reference.repository, version).await.map_err(|error| self.refused(error))?;
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
        let bytes = self.source.small_blob(&self.reference.repository, &expected, DOCUMENT_BYTES).await;
        let bytes = bytes.map_err(|error| self.refused(error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.broken(format!("the configuration {expected} cannot be read: {error}")))
    }

    /// Sees to it that the module is here; answers whether it had to be fetched.
    async fn module(&self, layer: &Descriptor, digest: &Digest) -> Result<bool, PullError> {
        let _turn = self.store.turns.take(&digest.to_string()).await;
        if self.store.blobs.get(digest).is_some() {
            return Ok(false);
        }
        let writer = self.blob(layer, digest, "module", MODULE_BYTES).await?;
        writer.finish(digest).await.map(|()| true).map_err(|error| self.not_stored(error))
    }

    /// The module that is a file in these layers, the lowest first, and now here.
    async fn file(&self, path: PathBuf, layers: &[&Descriptor]) -> Result<Digest, PullError> {
        let not_wasm = |found| PullError::NotWasm { image: self.reference.to_string(), found };
        let mut hunt = Hunt::new(path, layers.len());
        let mut files: Vec<Option<Arc<tempfile::TempPath>>> = vec![None; layers.len()];
        loop {
            let (index, path) = hunt.next().map_err(not_wasm)?;
            let path = path.to_owned();
            let file = match &files[index] {
                Some(file) => Arc::clone(file),
                None => Arc::clone(files[index].insert(self.layer(layers[index]).await?)),
            };
            let found = self.search(file, path, &layers[index].digest).await?;
            if let Some(digest) = hunt.note(found).map_err(not_wasm)? {
                return Ok(digest);
            }
        }
    }

    /// A layer as a file that goes when nobody needs it any more.
    async fn layer(&self, layer: &Descriptor) -> Result<Arc<tempfile::TempPath>, PullError> {
        let digest = layer.digest().map_err(|reason| self.broken(reason))?;
        let _turn = self.store.turns.take(&digest.to_string()).await;
        let writer = self.blob(layer, &digest, "layer", LAYER_BYTES).await?;
        writer.beside(&digest).await.map(Arc::new).map_err(|error| self.not_stored(error))
    }

    async fn search(
        &self,
        file: Arc<tempfile::TempPath>,
        path: PathBuf,
        layer: &str,
    ) -> Result<Found<Digest>, PullError> {
        let store = Arc::clone(&self.store.blobs);
        let searched = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(&*file)?;
            layers::search(file, &path, |content| store.keep(content, MODULE_BYTES))
        });
        let searched = searched.await.map_err(io::Error::other).flatten();
        searched.map_err(|error| self.broken(format!("the layer {layer} cannot be unpacked: {error}")))
    }

    /// Fetches a blob of at most so many bytes into a file that has no place yet, from where it broke off before. One that breaks off is
    /// gone on with at once, as long as more comes each time.
    async fn blob(&self, layer: &Descriptor, digest: &Digest, what: &str, most: u64) -> Result<BlobWriter, PullError> {
        if layer.size > most {
            return Err(self.broken(format!("the {what} has {} bytes; at most {most} are taken", layer.size)));
        }
        let mut writer = self.store.blobs.resume(digest).await.map_err(|error| self.disk(&error))?;
        if writer.size() > layer.size {
            writer.restart().await.map_err(|error| self.disk(&error))?;
        }
        while writer.size() < layer.size {
            let before = writer.size();
            let failed = match self.append(&mut writer, layer, digest).await {
                Ok(()) if writer.size() == layer.size => break,
                Ok(()) => {
                    self.broken(format!("the registry sent {} bytes of {digest}, not {}", writer.size(), layer.size))
                }
                Err(Broke::For(error)) => return Err(error),
                Err(Broke::Off(error)) => error,
            };
            tracing::debug!(%failed, have = writer.size(), of = layer.size, "a download broke off");
            if writer.size() <= before {
                writer.leave().await.map_err(|error| self.disk(&error))?;
                return Err(failed);
            }
        }
        Ok(writer)
    }

    /// Appends what a registry sends.
    async fn append(&self, writer: &mut BlobWriter, layer: &Descriptor, digest: &Digest) -> Result<(), Broke> {
        let content = self.source.blob(&self.reference.repository, digest, writer.size()).await;
        let (mut content, begins) = content.map_err(|error| Broke::Off(self.refused(error)))?;
        if begins != writer.size() {
            writer.restart().await.map_err(|error| Broke::For(self.disk(&error)))?;
        }
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|error| Broke::Off(self.broken(format!("reading {digest}: {error}"))))?;
            if writer.size() + chunk.len() as u64 > layer.size {
                writer.restart().await.map_err(|error| Broke::For(self.disk(&error)))?;
                let message = format!("the registry sent more than the {} bytes of {digest}", layer.size);
                return Err(Broke::For(self.broken(message)));
            }
            writer.write(&chunk).await.map_err(|error| Broke::For(self.disk(&error)))?;
        }
        Ok(())
    }

    fn not_stored(&self, error: StoreError) -> PullError {
        match error {
            StoreError::Mismatch { .. } => self.broken(error.to_string()),
            StoreError::Io { source, .. } => self.disk(&source),
        }
    }

    fn refused(&self, error: SourceError) -> PullError {
        refused(self.reference, error)
    }

    fn broken(&self, reason: String) -> PullError {
        PullError::Broken { image: self.reference.to_string(), reason }
    }

    fn disk(&self, error: &dyn std::fmt::Display) -> PullError {
        PullError::Disk { image: self.reference.to_string(), reason: error.to_string() }
    }
}

pub(crate) fn refused(reference: &Reference, error: SourceError) -> PullError {
    let image = reference.to_string();
    let registry = match &reference.registry {
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
