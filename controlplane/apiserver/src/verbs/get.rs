//! `get`: one object.

use http::{Response, StatusCode};
use serde_json::Value;
use shoal_api::Status;
use shoal_store::Entry;

use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::verbs::list_options;
use crate::{Body, errors, respond, stored};

/// Answers with the object, a table of it, or its metadata.
pub(crate) async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let view = respond::View::new(call.resource, form, &call.query)?;
    match list_options::revision(&call.query)? {
        None => call.barrier().await.map(drop)?,
        Some(0) => {}
        Some(revision) => list_options::wait_for(call, revision).await?,
    }
    let name = call.name()?;
    let entry = call.entry(name).ok_or_else(|| call.not_found(name))?;
    Ok(respond::json_text(StatusCode::OK, view.stored(&entry.value, entry.modified)?))
}

/// The current object in the stored spelling, with its entry; 404 when there is none.
pub(crate) fn current(call: &Call, name: &str) -> Result<(Value, Entry), Status> {
    let entry = call.entry(name).ok_or_else(|| call.not_found(name))?;
    let object = stored::decode(&entry.value, entry.modified).map_err(|error| errors::corrupt(&error))?;
    Ok((object, entry))
}
