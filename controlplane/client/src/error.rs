//! Why a request did not give what was asked.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use crate::TransportError;

/// Why a request did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The API said no.
    #[error("{}", .0.message.as_deref().unwrap_or("the API gave no reason"))]
    Status(Box<Status>),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer was not what the API answers.
    #[error("an answer of the API cannot be read: {0}")]
    Decode(String),
}

impl ClientError {
    /// The HTTP code that the API answered with.
    pub fn code(&self) -> Option<u16> {
        let Self::Status(status) = self else { return None };
        status.code.and_then(|code| u16::try_from(code).ok())
    }

    /// The API's reason in one word: `NotFound`, `Conflict`, `AlreadyExists`, ...
    pub fn reason(&self) -> &str {
        let Self::Status(status) = self else { return "" };
        status.reason.as_deref().unwrap_or_default()
    }

    /// The object is not (any more) what the writer saw: look again.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && self.reason() != "AlreadyExists"
    }

    /// There is one of that name already.
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(409) && self.reason() == "AlreadyExists"
    }

    /// There is none of that name.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The revision asked for is no longer kept: list again.
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }

    /// A write may or may not have happened.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Transport(TransportError::Unknown(_)))
    }
}
