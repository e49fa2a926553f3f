//! The one mapping from what can go wrong below to the `Status` that a client sees.

use shoal_api::Status;
use shoal_store::{CommitError, ReadError};

use crate::config::NodeUnreachable;
use crate::stored::CorruptObject;

/// A read that the store could not serve.
pub(crate) fn read(error: &ReadError) -> Status {
    tracing::debug!(%error, "read failed");
    Status::service_unavailable(
        "the server cannot read the current state: no majority of the servers can be reached".to_owned(),
    )
}

/// A commit that failed for a reason other than a precondition; those the caller knows how to answer.
pub(crate) fn commit(error: &CommitError) -> Status {
    tracing::debug!(%error, "commit failed");
    match error {
        CommitError::PreconditionFailed { .. } => Status::internal(format!("unexpected precondition: {error}")),
        CommitError::Unknown { .. } => {
            Status::timeout("the request may or may not have been applied: the servers lost their leader".to_owned())
        }
        CommitError::TooLarge { .. } => Status::request_entity_too_large(error.to_string()),
        _ => Status::service_unavailable(format!("the write was not applied: {error}")),
    }
}

/// Bytes in the store that are no object.
pub(crate) fn corrupt(error: &CorruptObject) -> Status {
    tracing::error!(%error, "object in the store cannot be read");
    Status::internal(error.to_string())
}

/// A node whose agent does not answer.
pub(crate) fn node(error: &NodeUnreachable) -> Status {
    Status::service_unavailable(error.to_string())
}
