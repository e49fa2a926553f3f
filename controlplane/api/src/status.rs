//! `metav1.Status`: the one form in which the API says that something failed.
//!
//! Each constructor is one of Kubernetes' reasons with its code and the exact text that clients look for. Which failure
//! of a lower layer becomes which status is decided elsewhere, in the one file of the API server that maps errors.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::validation::FieldError;

/// A failure as the API reports it. Serialises to the JSON of `metav1.Status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    api_version: ApiVersion,
    /// The list metadata; only `continue` is ever set.
    #[serde(default)]
    pub metadata: ListMeta,
    /// `Failure`, or `Success` for an outcome that has no object of its own.
    #[serde(default)]
    pub status: String,
    /// What went wrong, for a person.
    #[serde(default)]
    pub message: String,
    /// What went wrong, for a program: `NotFound`, `Conflict`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP code.
    #[serde(default)]
    pub code: u16,
}

/// What a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The resource's group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (`pods`), or the kind where Kubernetes says the kind (`Pod`, in `Invalid`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Each single cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One cause of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// `FieldValueInvalid`, `NamespaceTerminating`, ...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path of the field, if it is about one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// The list metadata of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListMeta {
    /// Where a list whose token has expired may go on.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
}

/// The one kind there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    #[default]
    Status,
}

/// The one version there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum ApiVersion {
    #[default]
    #[serde(rename = "v1")]
    V1,
}

/// `deployments.apps`, or `pods` for the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Status,
            api_version: ApiVersion::V1,
            metadata: ListMeta::default(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details_mut();
        group.clone_into(&mut details.group);
        kind.clone_into(&mut details.kind);
        name.clone_into(&mut details.name);
        self
    }

    fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_with(Box::default)
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 401: nobody we know.
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 403: `pods "x" is forbidden: MESSAGE`. An empty name stands for a collection.
    pub fn forbidden(group: &str, resource: &str, name: &str, message: impl fmt::Display) -> Self {
        let subject = qualified(group, resource);
        let message = match (resource, name) {
            ("", _) => format!("forbidden: {message}"),
            (_, "") => format!("{subject} is forbidden: {message}"),
            _ => format!("{subject} {name:?} is forbidden: {message}"),
        };
        Self::failure(403, "Forbidden", message).about(group, resource, name)
    }

    /// 404: `deployments.apps "x" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::failure(404, "NotFound", message).about(group, resource, name)
    }

    /// 404 for a path that is nothing here.
    pub fn path_not_found() -> Self {
        Self::failure(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405: the resource has no such verb.
    pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", qualified(group, resource));
        Self::failure(405, "MethodNotAllowed", message).about(group, resource, "")
    }

    /// 406: none of the forms that the client accepts.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::failure(406, "NotAcceptable", message)
    }

    /// 409: `pods "x" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::failure(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409: `Operation cannot be fulfilled on pods "x": MESSAGE`.
    pub fn conflict(group: &str, resource: &str, name: &str, message: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {message}", qualified(group, resource));
        Self::failure(409, "Conflict", message).about(group, resource, name)
    }

    /// 409: an applied configuration wants what others own.
    pub fn apply_conflict(message: impl Into<String>) -> Self {
        Self::failure(409, "Conflict", message)
    }

    /// 410: a revision that is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 410: what is asked for is gone for good.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, "Gone", message)
    }

    /// 413: too large a body.
    pub fn request_entity_too_large(message: impl fmt::Display) -> Self {
        Self::failure(413, "RequestEntityTooLarge", format!("Request entity is too large: {message}"))
    }

    /// 415: a body of a type that we do not read.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 422: a patch that does not fit the object.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::failure(422, "Invalid", message)
    }

    /// 422: `Deployment.apps "web" is invalid: [a, b]`, a cause for each field.
    pub fn invalid(group: &str, kind: &str, name: &str, problems: Vec<FieldError>) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for problem in &problems {
            let text = problem.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let subject = format!("{} {name:?} is invalid", qualified(group, kind));
        let message = match texts.as_slice() {
            [] => subject,
            [only] => format!("{subject}: {only}"),
            _ => format!("{subject}: [{}]", texts.join(", ")),
        };
        let mut status = Self::failure(422, "Invalid", message).about(group, kind, name);
        status.details_mut().causes = problems
            .into_iter()
            .map(|problem| Cause {
                reason: problem.kind.reason().to_owned(),
                message: problem.body(),
                field: problem.field,
            })
            .collect();
        status
    }

    /// 429: try again in `seconds`.
    pub fn too_many_requests(message: impl Into<String>, seconds: impl Into<u64>) -> Self {
        Self::failure(429, "TooManyRequests", message).with_retry_after(seconds)
    }

    /// 500: our fault.
    pub fn internal(message: impl fmt::Display) -> Self {
        let message = message.to_string();
        let mut status = Self::failure(500, "InternalError", format!("Internal error occurred: {message}"));
        status.details_mut().causes = vec![Cause { message, ..Cause::default() }];
        status
    }

    /// 503: not now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504: not in time; whether it has happened may be unknown.
    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::failure(504, "Timeout", format!("Timeout: {message}"))
    }

    /// 504 with the cause that makes client-go wait for the server to catch up.
    pub fn resource_version_too_large(wanted: u64, current: u64, retry_after_seconds: impl Into<u64>) -> Self {
        Self::timeout(format!("Too large resource version: {wanted}, current: {current}"))
            .with_cause("ResourceVersionTooLarge", "", "Too large resource version")
            .with_retry_after(retry_after_seconds)
    }

    /// The same, with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, field: &str, message: &str) -> Self {
        let cause = Cause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
        self.details_mut().causes.push(cause);
        self
    }

    /// The same, with a token with which a list may go on.
    #[must_use]
    pub fn with_continue(mut self, token: impl Into<String>) -> Self {
        self.metadata.continue_token = token.into();
        self
    }

    /// The same, asking to be tried again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: impl Into<u64>) -> Self {
        self.details_mut().retry_after_seconds = Some(u32::try_from(seconds.into()).unwrap_or(u32::MAX));
        self
    }

    /// When to try again, if it makes sense to.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref().and_then(|details| details.retry_after_seconds)
    }

    /// Whether this is reason `NotFound`.
    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    /// Whether this is reason `Conflict`.
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// Whether this is reason `AlreadyExists`.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn as_json(status: &Status) -> Value {
        serde_json::to_value(status).unwrap()
    }

    #[test]
    fn a_missing_object_is_named_with_its_group() {
        let status = Status::not_found("apps", "deployments", "web");
        assert_eq!(
            as_json(&status),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404,
                   "message": "deployments.apps \"web\" not found",
                   "details": {"name": "web", "group": "apps", "kind": "deployments"}})
        );
        assert_eq!(serde_json::from_value::<Status>(as_json(&status)).unwrap(), status);
    }

    #[test]
    fn each_invalid_field_is_a_cause() {
        let problems = vec![
            FieldError::required("spec.selector", ""),
            FieldError::invalid("spec.replicas", -1, "must be positive"),
        ];
        let status = Status::invalid("apps", "Deployment", "web", problems);
        assert_eq!(
            status.message,
            "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: must be positive]"
        );
        let causes = &as_json(&status)["details"]["causes"];
        assert_eq!(
            causes[1],
            json!({"reason": "FieldValueInvalid", "field": "spec.replicas", "message": "Invalid value: -1: must be positive"})
        );
        let single = Status::invalid("", "Pod", "a", vec![FieldError::forbidden("spec", "no")]);
        assert_eq!(single.message, "Pod \"a\" is invalid: spec: Forbidden: no");
    }

    #[test]
    fn messages_are_those_that_clients_know() {
        assert_eq!(
            Status::conflict("", "pods", "a", "the object has been modified").message,
            "Operation cannot be fulfilled on pods \"a\": the object has been modified"
        );
        assert_eq!(Status::forbidden("", "pods", "", "no").message, "pods is forbidden: no");
        assert_eq!(Status::too_many_requests("busy", 1_u32).retry_after_seconds(), Some(1));
    }
}
