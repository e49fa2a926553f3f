//! `scale`: how many replicas, in a form that is the same for every kind that has them (`autoscaling/v1` `Scale`).

use http::{Response, StatusCode};
use serde_json::{Value, json};
use shoal_api::Status;
use shoal_api::subresource::{self, scale_of};

use crate::handler::Call;
use crate::query::WriteOptions;
use crate::verbs::patch::Patch;
use crate::verbs::update::{self, Change, Part};
use crate::verbs::{apply, get};
use crate::{Body, decode, object, ownership, respond};

const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";
const KIND: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// Reads or changes the scale.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let name = call.name()?;
    if call.target.verb == "get" {
        call.barrier().await?;
        let (object, _) = get::current(call, name)?;
        return Ok(respond::value(StatusCode::OK, &scale_of(&object)));
    }
    let options = WriteOptions::parse(&call.query)?;
    let body = decode::read(body).await?;
    let write = Change::of(Part::Main, options.dry_run);
    let changed = if call.target.verb == "patch" && decode::media_type(&call.headers) == apply::MEDIA_TYPE {
        apply::require_manager(call)?;
        let (scale, _) = decode::configuration(&body, SCHEMA, KIND, options.field_validation)?;
        apply::apply(call, &configuration(call, &scale)?, Part::Main, options.dry_run).await?.1
    } else if call.target.verb == "patch" {
        apply::refuse_force(call)?;
        let patch = Patch::read(decode::media_type(&call.headers), &body)?;
        update::change(call, name, write, |object| {
            let patched = patch.apply(&scale_of(object), SCHEMA)?;
            let (scale, _) = decode::value(patched, Some(SCHEMA), KIND, options.field_validation)?;
            with_scale(object, &scale)
        })
        .await?
    } else {
        let (scale, _) = decode::object(&call.headers, &body, Some(SCHEMA), KIND, options.field_validation)?;
        update::change(call, name, write, |object| with_scale(object, &scale)).await?
    };
    Ok(respond::value(StatusCode::OK, &scale_of(&changed)))
}

/// The configuration of the object that a configuration of its scale stands for: the replicas are its own.
fn configuration(call: &Call, scale: &Value) -> Result<Value, Status> {
    let resource = call.resource;
    let mut wanted = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {}});
    for field in ["name", "namespace", "uid", "resourceVersion", "managedFields"] {
        if let Some(value) = scale.pointer(&format!("/metadata/{field}")).filter(|value| !value.is_null()) {
            wanted["metadata"][field] = value.clone();
        }
    }
    ownership::set_name(&mut wanted, call.name()?);
    if scale.pointer("/spec/replicas").is_some_and(|replicas| !replicas.is_null()) {
        subresource::apply_scale(&mut wanted, scale)?;
    }
    Ok(wanted)
}

/// The object with the replicas, and the precondition, of the scale.
fn with_scale(object: &Value, scale: &Value) -> Result<Value, Status> {
    let mut object = object.clone();
    subresource::apply_scale(&mut object, scale)?;
    for field in ["resourceVersion", "uid"] {
        match scale
            .pointer(&format!("/metadata/{field}"))
            .filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
        {
            Some(value) => object::metadata_mut(&mut object).insert(field.to_owned(), value.clone()),
            None => object::metadata_mut(&mut object).remove(field),
        };
    }
    Ok(object)
}
