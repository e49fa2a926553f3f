//! Why there is no image.

use crate::reference::InvalidReference;

/// Why an image could not be had. The messages name the image and the cause and are fit for a pod's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// The reference cannot be read; it never will be.
    #[error("failed to apply default image tag {:?}: {}", .0.text, .0)]
    InvalidName(#[from] InvalidReference),
    /// The policy forbids fetching, and it is not here.
    #[error("container image {image:?} is not present with pull policy of Never")]
    NeverPull {
        /// The reference.
        image: String,
    },
    /// No registry answered. What is known of the image, if anything, is all there is until one does.
    #[error("{image}: {registry} cannot be reached: {reason}")]
    Unreachable {
        /// The reference.
        image: String,
        /// Which registry, in words.
        registry: String,
        /// What the network said.
        reason: String,
    },
    /// The registry does not have it.
    #[error("{image}: not found in {registry}")]
    NotFound {
        /// The reference.
        image: String,
        /// Which registry, in words.
        registry: String,
    },
    /// The registry does not give it to us.
    #[error("{image}: {registry} refused: {reason}")]
    Denied {
        /// The reference.
        image: String,
        /// Which registry, in words.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// There is an image, but no single module in it.
    #[error("{image}: {found}")]
    NotWasm {
        /// The reference.
        image: String,
        /// What is there instead.
        found: String,
    },
    /// What the registry sent is not what it promised, or cannot be read.
    #[error("{image}: {reason}")]
    Broken {
        /// The reference.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// It is not signed as it must be.
    #[error("{image}: signature validation failed for {digest}: {reason}")]
    Unsigned {
        /// The reference.
        image: String,
        /// What it was resolved to.
        digest: String,
        /// What was found.
        reason: String,
    },
    /// This machine's disk failed or is full.
    #[error("{image}: failed to keep it: {reason}")]
    Disk {
        /// The reference.
        image: String,
        /// What the system said.
        reason: String,
    },
}

impl PullError {
    /// Kubernetes' word for it, as in a container's `waiting.reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "InvalidImageName",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::Unsigned { .. } => "SignatureValidationFailed",
            _ => "ErrImagePull",
        }
    }
}
