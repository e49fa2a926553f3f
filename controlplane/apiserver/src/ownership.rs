//! Which manager a write is by, and the managed fields that follow from it; the rules themselves are
//! `shoal_api::fields`.
//!
//! A manager is what `fieldManager` says, else the first part of the user agent (`kubectl/v1.35.2 ...` is `kubectl`),
//! else, for our own loops and nodes, the last part of the user's name.

use http::header::USER_AGENT;
use serde_json::{Value, json};
use shoal_api::decode::conform;
use shoal_api::fields::{self, Configuration, Writer};
use shoal_api::resource::Resource;
use shoal_api::schema::{self, Schema};
use shoal_api::{Status, metadata};

use crate::handler::Call;
use crate::{events, limits, object};

/// The message of an event as it is stored, whichever group it came by.
const STORED_EVENT: &str = "io.k8s.api.core.v1.Event";
/// The manager of nodes that do not name one.
const NODE: &str = "shoal-node";

/// How a write's managed fields come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The writer owns what it has changed.
    OfChanges,
    /// The object has its managed fields already: a configuration was applied to it.
    Settled,
}

/// Sets the managed fields of a new object, in the stored spelling.
pub(crate) fn created(call: &Call, object: &mut Value) {
    changed(call, &json!({ "metadata": {} }), None, object);
}

/// Sets the managed fields of a changed object; both are in the stored spelling, and `kept` are the managed fields of
/// the old one.
pub(crate) fn changed(call: &Call, old: &Value, kept: Option<&Value>, new: &mut Value) {
    let Some(schema) = stored_schema(call.resource) else { return };
    let (manager, api_version, now) = (manager(call), api_version(new), object::now());
    fields::track(old, kept, new, schema, writer(call, &manager, &api_version, &now));
}

/// Takes the managed fields out of an object for as long as nobody looks at them: most of the work of a write is in
/// proportion to what an object holds, and they are half of it.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object::metadata_mut(object).remove("managedFields")
}

/// Puts managed fields back that were taken out.
pub(crate) fn put_back(object: &mut Value, kept: Option<Value>) {
    if let Some(kept) = kept {
        object::metadata_mut(object).insert("managedFields".to_owned(), kept);
    }
}

/// Applies a configuration to an object; both, and the result, are in the spelling of the call's group.
///
/// # Errors
/// 409 when others own what it changes, 400 for a configuration that cannot be applied.
pub(crate) fn apply(call: &Call, live: &Value, wanted: &Value, force: bool) -> Result<Value, Status> {
    let schema = stored_schema(call.resource).ok_or_else(Status::path_not_found)?;
    let respelled = events::is_other_spelling(call.resource.group);
    let (mut live, mut wanted) = (live.clone(), wanted.clone());
    if respelled {
        events::store(&mut live);
        events::store(&mut wanted);
    }
    let (manager, api_version, now) = (manager(call), api_version(&wanted), object::now());
    let configuration = Configuration { object: &wanted, force };
    let applied = fields::apply(&live, configuration, schema, writer(call, &manager, &api_version, &now))
        .map_err(|error| error.to_status())?;
    // What was unset is null so far.
    let mut object = conform(applied.object, Some(schema.message().name)).map_err(|error| error.to_status())?.value;
    if respelled {
        events::serve(&mut object);
    }
    Ok(object)
}

fn writer<'a>(call: &'a Call, manager: &'a str, api_version: &'a str, now: &'a str) -> Writer<'a> {
    Writer { manager, api_version, subresource: call.target.subresource.as_deref().unwrap_or_default(), now }
}

fn stored_schema(resource: &Resource) -> Option<Schema<'static>> {
    schema::schema(if events::is_other_spelling(resource.group) { STORED_EVENT } else { resource.schema })
}

fn api_version(object: &Value) -> String {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Who writes; never empty.
fn manager(call: &Call) -> String {
    if let Some(named) = call.query.get("fieldManager") {
        return named.to_owned();
    }
    let agent = call.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent = cut(agent.split('/').next().unwrap_or_default());
    if !agent.is_empty() {
        return agent;
    }
    match cut(call.user.name.rsplit(':').next().unwrap_or_default()) {
        _ if call.user.node().is_some() => NODE.to_owned(),
        name if name.is_empty() => "unknown".to_owned(),
        name => name,
    }
}

/// The printable characters of a name, as many as a manager may have.
fn cut(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(limits::MANAGER_CHARACTERS).collect()
}

/// Fills in the name of the path: what an applied configuration does not name it gives up, and that must not be the name.
pub(crate) fn set_name(wanted: &mut Value, name: &str) {
    if metadata::name(wanted).unwrap_or_default().is_empty() {
        object::metadata_mut(wanted).insert("name".to_owned(), name.into());
    }
}
