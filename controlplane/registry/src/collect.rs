//! What every server does with its own files now and then: removes those that no manifest names, and fetches those that it lacks.
//!
//! The manifests are read as of now, so that one that was acknowledged is seen. One that is being pushed is not, which is why a file is
//! young again whenever a push looks at it, here or from another server, and a young file stays. Whoever looks and then removes, or
//! looks and then relies on what is there, does it alone.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::SystemTime;

use serde_json::Value;
use shoal_images::blobs::Digest;

use crate::catalog::{CatalogError, MANIFESTS};
use crate::error::Problem;
use crate::manifest::split;
use crate::{Registry, limits};

/// What one round did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The blobs that were removed.
    pub removed: Vec<Digest>,
    /// The bytes that they had.
    pub removed_bytes: u64,
    /// The blobs that were fetched from another server.
    pub fetched: Vec<Digest>,
}

/// Why a round did not come to its end; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The manifests could not be read: nothing was removed.
    #[error("failed to read the manifests")]
    Catalog(#[from] CatalogError),
    /// The folder of the blobs could not be read, or a file of it not removed.
    #[error("failed to tidy the blobs up")]
    Disk(#[from] std::io::Error),
}

/// The blobs that manifests name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    /// Whatever is named anywhere, in whatever form: too many rather than too few.
    all: BTreeSet<Digest>,
    /// Those that must be here: configurations and layers that have no URL of their own.
    needed: BTreeSet<Digest>,
}

impl Named {
    fn add(&mut self, manifest: &Value) {
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let held = layers.chain(manifest.get("config")).filter(|descriptor| descriptor.get("urls").is_none());
        self.needed.extend(held.filter_map(|descriptor| Digest::parse(descriptor["digest"].as_str()?).ok()));
        self.add_all(manifest);
    }

    fn add_all(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.all.extend(Digest::parse(text)),
            Value::Array(values) => values.iter().for_each(|value| self.add_all(value)),
            Value::Object(fields) => fields.values().for_each(|value| self.add_all(value)),
            _ => {}
        }
    }
}

impl Registry {
    /// One round, at `now`.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn collect(&self, now: SystemTime) -> Result<Collected, CollectError> {
        let mut named = Named::default();
        for (_, record) in self.catalog.list(MANIFESTS.to_string()).await? {
            let (_, document) = split(&record);
            // What is stored was read when it was pushed.
            named.add(&serde_json::from_slice(&document).unwrap_or_default());
        }
        let mut collected = Collected::default();
        for digest in self.blobs.list()?.into_iter().filter(|digest| !named.all.contains(digest)) {
            if let Some(bytes) = self.remove_old(&digest, now)? {
                collected.removed_bytes += bytes;
                collected.removed.push(digest);
            }
        }
        for digest in named.needed {
            // One that no other server has either is told to those who ask for it.
            if self.blobs.get(&digest).is_none() && matches!(self.local_blob(&digest).await, Ok(Some(_))) {
                collected.fetched.push(digest);
            }
        }
        Ok(collected)
    }

    /// Removes a blob unless it is young; answers its bytes.
    fn remove_old(&self, digest: &Digest, now: SystemTime) -> std::io::Result<Option<u64>> {
        let _alone = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.blobs.get(digest) else { return Ok(None) };
        let metadata = std::fs::metadata(path)?;
        // A clock that was set back makes files younger than now: they wait.
        let is_old = now.duration_since(metadata.modified()?).is_ok_and(|age| age >= limits::UNNAMED_GRACE);
        if !is_old {
            return Ok(None);
        }
        self.blobs.delete(digest)?;
        Ok(Some(metadata.len()))
    }

    /// Keeps a blob that a push relies on for another [`limits::UNNAMED_GRACE`]; answers whether it is here.
    pub(crate) fn hold(&self, digest: &Digest) -> Result<bool, Problem> {
        let _alone = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.blobs.get(digest) else { return Ok(false) };
        let touch = |path: PathBuf| std::fs::File::options().append(true).open(path)?.set_modified(SystemTime::now());
        touch(path).map_err(|error| Problem::internal("keep a blob", &error))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_digests_are_named_and_those_of_contents_are_needed() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let row = |text: &str| json!({"digest": digest(text).to_string()});
        let mut elsewhere = row("elsewhere");
        elsewhere["urls"] = json!(["https://example.com"]);
        let mut named = Named::default();
        named.add(&json!({"config": row("config"), "layers": [row("layer"), elsewhere], "subject": row("subject")}));
        named.add(&json!({"manifests": [row("platform")], "blobs": [row("blob")], "annotations": {"x": "sha256:no"}}));
        named.add(&Value::Null);
        assert_eq!(named.needed, ["config", "layer"].map(digest).into());
        assert_eq!(named.all, ["config", "layer", "elsewhere", "subject", "platform", "blob"].map(digest).into());
    }
}
