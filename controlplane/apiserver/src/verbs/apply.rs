//! `patch` with a configuration: server-side apply, which changes an object or creates it.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use shoal_api::{FieldError, Status};

use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::ownership::{self, Ownership};
use crate::query::WriteOptions;
use crate::verbs::create;
use crate::verbs::update::{self, Change, Part};
use crate::{Body, decode, limits, object, respond};

/// The media type of a configuration.
pub(crate) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// Applies the configuration in the body to the named object.
pub(crate) async fn answer(call: &Call, body: Body, part: Part) -> Result<Response<Body>, Status> {
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let shown = respond::View::new(call.resource, form, &call.query)?;
    let options = WriteOptions::parse(&call.query)?;
    require_manager(call)?;
    let resource = call.resource;
    let name = call.name()?;
    let body = decode::read(body).await?;
    let kind = (resource.group, resource.version, resource.kind);
    let (mut wanted, warnings) = decode::configuration(&body, resource.schema, kind, options.field_validation)?;
    ownership::set_name(&mut wanted, name);
    narrow(&mut wanted, part);
    let (code, object) = apply(call, &wanted, part, options.dry_run).await?;
    Ok(respond::with_warnings(respond::value(code, &shown.object(object)), &warnings))
}

/// Applies a configuration of the object itself; creates it when it is absent and `part` is all of it.
pub(crate) async fn apply(
    call: &Call,
    wanted: &Value,
    part: Part,
    dry_run: bool,
) -> Result<(StatusCode, Value), Status> {
    let name = call.name()?;
    let force = call.query.flag("force");
    let change = Change { part, dry_run, ownership: Ownership::Settled };
    for _ in 0..limits::UPDATE_TRIES {
        match update::change(call, name, change, |live| ownership::apply(call, live, wanted, force)).await {
            Err(status) if status.code == 404 && part == Part::Main && call.target.subresource.is_none() => {}
            changed => return Ok((StatusCode::OK, changed?)),
        }
        let resource = call.resource;
        call.require("create", resource.group, resource.plural, "", name)?;
        let object = ownership::apply(call, &absent(wanted), wanted, force)?;
        update::check_name(&object, name)?;
        match create::create(call, object, dry_run, Ownership::Settled).await {
            // Somebody else was faster: there is something to apply to now.
            Err(status) if status.is_already_exists() => {}
            created => return Ok((StatusCode::CREATED, created?)),
        }
    }
    Err(update::conflict(call, name))
}

/// An object of no content, to which a configuration is applied when there is none.
fn absent(wanted: &Value) -> Value {
    let mut object = json!({ "metadata": {} });
    for field in ["apiVersion", "kind"] {
        object[field] = wanted[field].clone();
    }
    object
}

/// Leaves of a configuration what this part of the object may change: the rest is not even owned.
fn narrow(wanted: &mut Value, part: Part) {
    let Some(map) = wanted.as_object_mut() else { return };
    if part == Part::Main {
        map.remove("status");
        return;
    }
    if part == Part::EphemeralContainers {
        map.remove("status");
        if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
            spec.retain(|field, _| field == "ephemeralContainers");
        }
        return;
    }
    map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
    let metadata = object::metadata_mut(wanted);
    ["finalizers", "ownerReferences"].iter().for_each(|field| drop(metadata.remove(*field)));
}

/// Who applies must have a name.
pub(crate) fn require_manager(call: &Call) -> Result<(), Status> {
    if call.query.get("fieldManager").is_some() {
        return Ok(());
    }
    Err(options_invalid(FieldError::required("fieldManager", "is required for apply patch")))
}

/// Refuses `force` for a patch that is no configuration.
pub(crate) fn refuse_force(call: &Call) -> Result<(), Status> {
    if call.query.get("force").is_none() {
        return Ok(());
    }
    Err(options_invalid(FieldError::forbidden("force", "may not be specified for non-apply patch")))
}

fn options_invalid(problem: FieldError) -> Status {
    Status::invalid("meta.k8s.io", "PatchOptions", "", vec![problem])
}
