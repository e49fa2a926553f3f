//! The three kinds of patch that do not know who owns what: JSON patch, merge patch and strategic merge patch.
//!
//! Each takes the present object and answers with the patched one. Whether the result is an object of its kind is for
//! [`crate::decode::conform`] to say. A patch that would do nothing yields an equal object.

mod ordering;
mod strategic;

use serde_json::Value;

use crate::status::Status;

pub use strategic::strategic_merge;

/// The most operations of one JSON patch, as in Kubernetes.
pub const MAX_OPERATIONS: usize = 10_000;

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Not a patch of its media type.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// More than [`MAX_OPERATIONS`].
    #[error("the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// An operation of a JSON patch does not fit the object: a failed test, a missing path.
    #[error("{0}")]
    NotApplicable(String),
    /// A strategic merge patch with a wrong directive or a missing merge key.
    #[error("invalid strategic merge patch: {0}")]
    Strategic(String),
}

impl PatchError {
    /// The answer to the client.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Malformed(_) | Self::Strategic(_) => Status::bad_request(self.to_string()),
            Self::TooManyOperations(_) => Status::request_entity_too_large(self),
            Self::NotApplicable(_) => Status::unprocessable(self.to_string()),
        }
    }
}

/// Applies a JSON patch (RFC 6902): all of its operations or none.
///
/// # Errors
/// See [`PatchError`]; `object` is then unchanged.
pub fn json_patch(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    if operations.0.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.0.len()));
    }
    json_patch::patch(object, &operations).map_err(|error| PatchError::NotApplicable(error.to_string()))
}

/// Applies a merge patch (RFC 7396): members replace members, null removes, lists are replaced whole.
pub fn merge_patch(object: &mut Value, patch: &Value) {
    json_patch::merge(object, patch);
}

#[cfg(test)]
mod tests;
