//! A request's body, read within limits and turned into an object of the kind that the path names.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use serde_json::Value;
use shoal_api::Status;
use shoal_api::decode::{Decoded, conform, decode_body, decode_configuration};

use crate::query::FieldValidation;
use crate::{Body, limits};

/// Reads a whole body.
///
/// # Errors
/// 413 above the limit, 504 when the client takes too long, 400 when it goes away.
pub(crate) async fn read(body: Body) -> Result<Bytes, Status> {
    match tokio::time::timeout(limits::BODY_READ, collect(body)).await {
        Ok(read) => read,
        Err(_) => Err(Status::timeout("the request body did not arrive in time")),
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("read the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limits::BODY_BYTES {
            return Err(Status::request_entity_too_large(format!("limit is {}", limits::BODY_BYTES)));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The media type of a body, without parameters; JSON when none is named.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.split(';').next().map(str::trim) {
        None | Some("") => "application/json",
        Some(media) => media,
    }
}

/// An object of kind `kind` from a body, and the warnings about it.
///
/// # Errors
/// 415 for an unknown media type, 400 for a body that is no such object or, under strict validation, holds unknown or
/// repeated fields.
pub(crate) fn object(
    headers: &HeaderMap,
    body: &[u8],
    schema: Option<&str>,
    kind: (&str, &str, &str),
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let decoded = decode_body(media_type(headers), body, schema).map_err(|error| error.to_status())?;
    finish(decoded, kind, validation)
}

/// A configuration to apply of kind `kind`, with its nulls.
pub(crate) fn configuration(
    body: &[u8],
    schema: &str,
    kind: (&str, &str, &str),
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    finish(decode_configuration(body, Some(schema)).map_err(|error| error.to_status())?, kind, validation)
}

/// An object of kind `kind` from a value that a patch has made.
pub(crate) fn value(
    value: Value,
    schema: Option<&str>,
    kind: (&str, &str, &str),
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    finish(conform(value, schema).map_err(|error| error.to_status())?, kind, validation)
}

fn finish(
    decoded: Decoded,
    kind: (&str, &str, &str),
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let mut object = decoded.value;
    check_kind(&mut object, kind)?;
    let warnings = strict_facts(decoded.strict, validation)?;
    Ok((object, warnings))
}

/// What unknown and repeated fields lead to: nothing, warnings, or a refusal.
fn strict_facts(facts: Vec<String>, validation: FieldValidation) -> Result<Vec<String>, Status> {
    match validation {
        FieldValidation::Strict if !facts.is_empty() => {
            Err(Status::bad_request(format!("strict decoding error: {}", facts.join(", "))))
        }
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict | FieldValidation::Warn => Ok(facts),
    }
}

/// Fills in a missing kind and refuses another one.
fn check_kind(object: &mut Value, (group, version, kind): (&str, &str, &str)) -> Result<(), Status> {
    let expected = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request(format!("the body is no {kind}: it is not an object")));
    };
    for (field, expected) in [("apiVersion", expected.as_str()), ("kind", kind)] {
        let given = map.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if given.is_empty() {
            map.insert(field.to_owned(), expected.into());
        } else if given != expected {
            return Err(Status::bad_request(format!(
                "the {} in the data ({given}) does not match the expected {} ({expected})",
                if field == "kind" { "kind" } else { "API version" },
                if field == "kind" { "kind" } else { "API version" },
            )));
        }
    }
    Ok(())
}
