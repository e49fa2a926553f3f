//! An image that is on this machine.

use std::path::PathBuf;

use crate::blobs::Digest;
use crate::reference::Reference;

/// When to look for an image again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time its tag is resolved anew; what is here already is not fetched again.
    Always,
    /// Only if it is not here.
    IfNotPresent,
    /// It is here, or it fails.
    Never,
}

/// A module on this machine, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What was asked for.
    pub reference: Reference,
    /// The digest that the reference was resolved to: the manifest's, or the index's.
    pub digest: Digest,
    /// The digest of the `.wasm` itself.
    pub module: Digest,
    /// Its file, which is never changed.
    pub path: PathBuf,
    /// The bytes of the file.
    pub size_bytes: u64,
    /// The command that the image names; empty for most.
    pub entrypoint: Vec<String>,
    /// The variables that the image sets, in its order.
    pub environment: Vec<(String, String)>,
    /// Whether the module had to be fetched just now.
    pub was_fetched: bool,
}

impl Image {
    /// Name and digest: the same image for ever, as `status.containerStatuses[].imageID` wants it.
    pub fn image_id(&self) -> String {
        format!("{}@{}", self.reference.name(), self.digest)
    }
}
