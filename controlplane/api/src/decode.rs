//! From a request's body to an object: JSON, YAML or protobuf in, a checked `serde_json::Value` out.
//!
//! What the schema does not know is left out and named ([`Decoded::unknown`]); what stands twice counts with its last
//! value and is named too; a wrong type is an error in the words that kubectl users know. Defaults and rules about
//! values are not decided here. Begin with [`decode_body`]; [`conform`] does the same to a value that a patch has made.

mod check;
mod raw;

use serde_json::Value;

use crate::protobuf::{self, ProtobufError};
use crate::schema::{self, Schema};
use crate::status::Status;

use raw::Raw;

/// The largest body that is looked at, in bytes; Kubernetes' own limit.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// How deep a body may nest.
pub const MAX_DEPTH: usize = 100;

/// An object that a client has sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The object without what the schema does not know, and without nulls but in a configuration to apply.
    pub value: Value,
    /// `apps/v1`; empty if the body does not say.
    pub api_version: String,
    /// `Deployment`; empty if the body does not say.
    pub kind: String,
    /// The paths of unknown fields: `spec.unknownField`, `spec.containers[0].imagee`.
    pub unknown: Vec<String>,
    /// The paths of fields that stand more than once.
    pub duplicate: Vec<String>,
    /// Both as sentences, in the order of the body: `unknown field "spec.unknownField"`.
    pub strict: Vec<String>,
}

/// Why a body is no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Neither JSON nor YAML nor protobuf.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf"
    )]
    UnsupportedMediaType(String),
    /// Above [`MAX_BODY_BYTES`].
    #[error("Request entity too large: limit is {MAX_BODY_BYTES}")]
    TooLarge,
    /// Above [`MAX_DEPTH`].
    #[error("the object nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Not well-formed JSON or YAML.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Malformed(String),
    /// A value of the wrong type.
    #[error("{0}")]
    Mismatch(String),
    /// Not well-formed protobuf, or of a kind that is not known.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
}

impl DecodeError {
    /// The answer to the client.
    pub fn to_status(&self) -> Status {
        match self {
            Self::UnsupportedMediaType(_) => Status::unsupported_media_type(self.to_string()),
            Self::TooLarge => Status::request_entity_too_large(format!("limit is {MAX_BODY_BYTES}")),
            _ => Status::bad_request(self.to_string()),
        }
    }
}

/// Reads a body of the given media type, parameters allowed; empty means JSON.
///
/// `schema` names the message that the body should be. Without it the body's own kind decides, and a kind that the
/// table does not know is taken as it is.
///
/// # Errors
/// See [`DecodeError`]; nothing but the request is at fault.
pub fn decode_body(content_type: &str, body: &[u8], schema: Option<&str>) -> Result<Decoded, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge);
    }
    let raw = match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => raw::from_json(body)?,
        "application/yaml" => raw::from_yaml(body)?,
        protobuf::MEDIA_TYPE => Raw::from(protobuf::decode_as(body, schema)?),
        other => return Err(DecodeError::UnsupportedMediaType(other.to_owned())),
    };
    conform_raw(raw, schema)
}

/// Reads a configuration to apply, YAML or JSON, and keeps the nulls of its fields: they unset what they name.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_configuration(body: &[u8], schema: Option<&str>) -> Result<Decoded, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge);
    }
    // JSON is YAML, and most clients send it; its own parser is faster and knows every escape of it.
    let raw = raw::from_json(body).or_else(|_| raw::from_yaml(body))?;
    conform_with(raw, schema, Nulls::Kept)
}

/// Checks a value against its schema as [`decode_body`] does: for what a patch has made.
///
/// # Errors
/// [`DecodeError::Mismatch`] for a value of the wrong type, [`DecodeError::TooDeep`].
pub fn conform(value: Value, schema: Option<&str>) -> Result<Decoded, DecodeError> {
    conform_raw(Raw::from(value), schema)
}

/// What becomes of a field that is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nulls {
    Kept,
    Dropped,
}

fn conform_raw(raw: Raw, schema: Option<&str>) -> Result<Decoded, DecodeError> {
    conform_with(raw, schema, Nulls::Dropped)
}

fn conform_with(raw: Raw, schema: Option<&str>, nulls: Nulls) -> Result<Decoded, DecodeError> {
    let api_version = raw.text("apiVersion").to_owned();
    let kind = raw.text("kind").to_owned();
    let schema = match schema {
        Some(name) => schema::schema(name),
        None => schema_of(&api_version, &kind),
    };
    let subject = if kind.is_empty() {
        schema.map_or(String::new(), |schema| schema.short_name().to_owned())
    } else {
        kind.clone()
    };
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let checked = check::check(raw, schema, nulls).map_err(|problem| match problem {
        check::Problem::TooDeep => DecodeError::TooDeep,
        check::Problem::Mismatch(text) => {
            DecodeError::Mismatch(format!("{subject} in version {version:?} cannot be handled as a {subject}: {text}"))
        }
    })?;
    let sentences = checked.facts.iter().map(ToString::to_string).collect();
    let (mut unknown, mut duplicate) = (Vec::new(), Vec::new());
    for fact in checked.facts {
        match fact {
            check::Fact::Unknown(path) => unknown.push(path),
            check::Fact::Duplicate(path) => duplicate.push(path),
        }
    }
    Ok(Decoded { value: checked.value, api_version, kind, unknown, duplicate, strict: sentences })
}

/// The schema of a kind as a body names it: `apps/v1` and `Deployment`.
pub fn schema_of(api_version: &str, kind: &str) -> Option<Schema<'static>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema::of_kind(group, version, kind)
}

#[cfg(test)]
mod tests;
