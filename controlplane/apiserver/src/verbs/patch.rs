//! `patch`: JSON, merge and strategic merge patches, applied to what is there and then written as an update. A
//! configuration (server-side apply) goes its own way.

use http::{Response, StatusCode};
use serde_json::Value;
use shoal_api::Status;
use shoal_api::patch::{json_patch, merge_patch, strategic_merge};

use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::query::WriteOptions;
use crate::verbs::apply;
use crate::verbs::update::{self, Change, Part};
use crate::{Body, decode, respond};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";

/// A patch that has been read.
pub(crate) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch of the request's media type.
    ///
    /// # Errors
    /// 415 for another media type, 400 for a body that is not JSON.
    pub(crate) fn read(media_type: &str, body: &[u8]) -> Result<Self, Status> {
        let kind = match media_type {
            JSON_PATCH => Self::Json,
            MERGE_PATCH => Self::Merge,
            STRATEGIC_MERGE_PATCH => Self::Strategic,
            _ => {
                return Err(Status::unsupported_media_type(format!(
                    "the body of the request was in an unknown format - accepted media types include: {JSON_PATCH}, {MERGE_PATCH}, \
                     {STRATEGIC_MERGE_PATCH}, {}",
                    apply::MEDIA_TYPE
                )));
            }
        };
        let value = serde_json::from_slice(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        Ok(kind(value))
    }

    /// The patched object.
    pub(crate) fn apply(&self, current: &Value, schema: &str) -> Result<Value, Status> {
        match self {
            Self::Json(patch) => {
                let mut object = current.clone();
                json_patch(&mut object, patch).map_err(|error| error.to_status())?;
                Ok(object)
            }
            Self::Merge(patch) => {
                let mut object = current.clone();
                merge_patch(&mut object, patch);
                Ok(object)
            }
            Self::Strategic(patch) => strategic_merge(current, patch, schema).map_err(|error| error.to_status()),
        }
    }
}

/// Patches the named object.
pub(crate) async fn answer(call: &Call, body: Body, part: Part) -> Result<Response<Body>, Status> {
    if decode::media_type(&call.headers) == apply::MEDIA_TYPE {
        return apply::answer(call, body, part).await;
    }
    apply::refuse_force(call)?;
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let shown = respond::View::new(call.resource, form, &call.query)?;
    let options = WriteOptions::parse(&call.query)?;
    let body = decode::read(body).await?;
    let patch = Patch::read(decode::media_type(&call.headers), &body)?;
    let resource = call.resource;
    let warnings = std::sync::Mutex::new(Vec::new());
    let object = update::change(call, call.name()?, Change::of(part, options.dry_run), |current| {
        let patched = patch.apply(current, resource.schema)?;
        let kind = (resource.group, resource.version, resource.kind);
        let (object, facts) = decode::value(patched, Some(resource.schema), kind, options.field_validation)?;
        if let Ok(mut warnings) = warnings.lock() {
            *warnings = facts;
        }
        Ok(object)
    })
    .await?;
    let warnings = warnings.into_inner().unwrap_or_default();
    Ok(respond::with_warnings(respond::value(StatusCode::OK, &shown.object(object)), &warnings))
}
