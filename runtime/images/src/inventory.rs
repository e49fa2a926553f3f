//! What is on this machine, and its removal.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use crate::blobs::Digest;
use crate::reference::Reference;
use crate::store::ImageStore;

/// A module on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its digest.
    pub module: Digest,
    /// The bytes of its file.
    pub size_bytes: u64,
    /// When it came.
    pub since: SystemTime,
    /// The references that lead to it, in their canonical form, sorted; none if a tag moved on.
    pub references: Vec<String>,
    /// The images that it is of, each as name and digest, sorted.
    pub image_ids: Vec<String>,
}

impl ImageStore {
    /// Every module that is here, by digest.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn list(self: &Arc<Self>) -> io::Result<Vec<Stored>> {
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || store.look()).await.map_err(io::Error::other)?
    }

    /// Removes a module and all that led to it. Whoever wants it again fetches it again.
    ///
    /// # Errors
    /// When a file cannot be removed; what is left is a module that no reference leads to, or all of it.
    pub async fn remove(self: &Arc<Self>, module: &Digest) -> io::Result<()> {
        let _turn = self.turns.take(&module.to_string()).await;
        let (store, module) = (Arc::clone(self), module.clone());
        tokio::task::spawn_blocking(move || store.forget(&module)).await.map_err(io::Error::other)?
    }

    fn look(&self) -> io::Result<Vec<Stored>> {
        let mut found = BTreeMap::new();
        for module in self.blobs.list()? {
            // One that is removed meanwhile is not here.
            let Some(metadata) = self.blobs.get(&module).and_then(|path| std::fs::metadata(path).ok()) else {
                continue;
            };
            let stored = Stored {
                module: module.clone(),
                size_bytes: metadata.len(),
                since: metadata.modified()?,
                references: Vec::new(),
                image_ids: Vec::new(),
            };
            found.insert(module, stored);
        }
        for record in self.records.list()? {
            let Ok(module) = Digest::parse(&record.module) else { continue };
            if let (Some(stored), Ok(reference)) = (found.get_mut(&module), Reference::parse(&record.reference)) {
                stored.image_ids.push(format!("{}@{}", reference.name(), record.digest));
                stored.references.push(record.reference);
            }
        }
        for stored in found.values_mut() {
            stored.references.sort();
            stored.image_ids.sort();
            stored.image_ids.dedup();
        }
        Ok(found.into_values().collect())
    }

    fn forget(&self, module: &Digest) -> io::Result<()> {
        let text = module.to_string();
        for record in self.records.list()?.into_iter().filter(|record| record.module == text) {
            self.records.remove(&record.reference)?;
        }
        self.blobs.delete(module)
    }
}
