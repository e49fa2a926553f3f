//! Why a signature does not count.

use crate::blobs::Digest;

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Flaw {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It says something else than that an image is signed.
    #[error("is of another type, {0:?}")]
    OtherType(String),
    /// It is for another image.
    #[error("is for another image, {0}")]
    OtherImage(String),
    /// None of the keys made it, or what it signs was changed.
    #[error("is by none of the keys that are trusted")]
    OtherKey,
}

impl Flaw {
    pub(crate) fn unreadable(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Unreadable(format!("{what}: {why}"))
    }

    /// The texts are a stranger's: short, and without what would break a line.
    pub(crate) fn other_type(found: &str) -> Self {
        Self::OtherType(found.chars().take(100).collect())
    }

    pub(crate) fn other_image(found: &str) -> Self {
        Self::OtherImage(Digest::parse(found).map_or_else(|error| error.to_string(), |digest| digest.to_string()))
    }
}
