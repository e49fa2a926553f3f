//! What can go wrong, in the form that registry clients read: `{"errors": [{"code", "message"}]}`.

use http::{Response, StatusCode, header};
use shoal_link::http::Body;

use crate::catalog::CatalogError;
use crate::respond;

/// An error answer of the distribution API: a status, one of the specification's codes, and a sentence.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(crate) fn name_invalid(name: &str) -> Self {
        let message = format!(
            "repository name {name:?} must be lower-case words of letters, digits, '.', '_' or '-', joined by '/'"
        );
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message)
    }

    pub(crate) fn tag_invalid(tag: &str) -> Self {
        let message = format!(
            "tag {tag:?} must be at most 128 letters, digits, '.', '_' or '-', and begin with a letter, a digit or '_'"
        );
        Self::new(StatusCode::BAD_REQUEST, "TAG_INVALID", message)
    }

    pub(crate) fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(crate) fn manifest_unknown(name: &str, reference: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("repository {name:?} has no manifest {reference:?}"),
        )
    }

    pub(crate) fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub(crate) fn manifest_blob_unknown(digest: &str) -> Self {
        let message = format!("the manifest names blob {digest}, which was not pushed");
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", message)
    }

    pub(crate) fn name_unknown(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("there is no repository {name:?}"))
    }

    pub(crate) fn blob_unknown(digest: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("there is no blob {digest}"))
    }

    pub(crate) fn range_not_satisfiable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
    }

    pub(crate) fn upload_unknown() -> Self {
        let message =
            "there is no such upload on this server: it ended, was idle for too long, or began on another server";
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", message)
    }

    pub(crate) fn upload_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
    }

    pub(crate) fn too_many_uploads() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TOOMANYREQUESTS",
            "too many uploads are open on this server: try again shortly",
        )
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such path in the distribution API")
    }

    /// A disk or peer failed; the details are in the server's log.
    pub(crate) fn internal(doing: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, doing, "the registry could not serve a request");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", format!("failed to {doing}: {error}"))
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let text = serde_json::json!({"errors": [{"code": self.code, "message": self.message}]}).to_string();
        let mut response = respond::bytes(self.status, "application/json", text);
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            format!("the cluster's store did not answer: {error}"),
        )
    }
}
