//! The shapes that users apply: deployments, services, config maps, finalizers; and what must hold for any of them.

mod laws;
mod shapes;
mod writes;

use serde_json::{Value, json};

use super::{Applied, ApplyError, Configuration, Managed, Manager, Operation, Writer, apply, track};
use crate::decode::conform;
use crate::schema::{Schema, of_kind};

pub(super) const NOON: &str = "2026-01-01T12:00:00Z";
pub(super) const LATER: &str = "2026-01-01T13:00:00Z";

pub(super) fn deployments() -> Schema<'static> {
    of_kind("apps", "v1", "Deployment").unwrap()
}

pub(super) fn config_maps() -> Schema<'static> {
    of_kind("", "v1", "ConfigMap").unwrap()
}

pub(super) fn by(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "apps/v1", subresource: "", now: NOON }
}

/// Applies and cleans up as a server does; panics on a conflict.
pub(super) fn applied(live: &Value, wanted: &Value, schema: Schema<'_>, writer: Writer<'_>) -> Value {
    finish(apply(live, Configuration { object: wanted, force: false }, schema, writer), schema).unwrap()
}

pub(super) fn forced(live: &Value, wanted: &Value, schema: Schema<'_>, writer: Writer<'_>) -> Value {
    finish(apply(live, Configuration { object: wanted, force: true }, schema, writer), schema).unwrap()
}

fn finish(outcome: Result<Applied, ApplyError>, schema: Schema<'_>) -> Result<Value, ApplyError> {
    let mut object = conform(outcome?.object, Some(schema.message().name)).unwrap().value;
    object["metadata"]["uid"] = "1".into();
    Ok(object)
}

/// The message of the refusal.
pub(super) fn refused(live: &Value, wanted: &Value, schema: Schema<'_>, writer: Writer<'_>) -> String {
    let error = apply(live, Configuration { object: wanted, force: false }, schema, writer).unwrap_err();
    error.to_status().message
}

/// Writes an object as a PUT does.
pub(super) fn put(live: &Value, new: &Value, schema: Schema<'_>, writer: Writer<'_>) -> Value {
    let mut new = new.clone();
    track(live, live.pointer("/metadata/managedFields"), &mut new, schema, writer);
    new["metadata"]["uid"] = "1".into();
    new
}

/// Creates an object as a POST does.
pub(super) fn posted(new: &Value, schema: Schema<'_>, writer: Writer<'_>) -> Value {
    put(&json!({ "metadata": {} }), new, schema, writer)
}

/// What a manager owns, as `FieldsV1`; null if nothing.
pub(super) fn owned(object: &Value, manager: &str, operation: Operation) -> Value {
    let managed = Managed::decode(&object["metadata"]["managedFields"]).unwrap();
    let found = managed.iter().find(|(id, _)| id.name == manager && id.operation == operation);
    found.map_or(Value::Null, |(_, entry)| entry.fields.encode())
}

pub(super) fn managers(object: &Value) -> Vec<Manager> {
    let managed = Managed::decode(&object["metadata"]["managedFields"]).unwrap();
    managed.iter().map(|(manager, _)| manager.clone()).collect()
}

/// An absent deployment, as apply sees one.
pub(super) fn absent() -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" } })
}

pub(super) fn deployment(spec: Value) -> Value {
    let mut object = absent();
    object["spec"] = spec;
    object
}

pub(super) fn with_containers(containers: Value) -> Value {
    let mut object = absent();
    object["spec"]["template"]["spec"]["containers"] = containers;
    object
}
