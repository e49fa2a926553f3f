//! The OpenAPI documents, made of the schema table and the resource table.
//!
//! kubectl wants three things of them: the schemas of the kinds with `x-kubernetes-group-version-kind` (`explain`), the
//! list and patch marks (`apply`, which makes strategic merge patches by them), and the `patch` operations with their
//! `fieldValidation` parameter and media types (to know what the server can do). So `paths` holds the `patch`
//! operations alone. Descriptions are our own, and few.

mod components;
mod paths;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::resource::{Resource, resources};
use components::{Components, Dialect};

/// The index at `/openapi/v3`: every document's path with a hash of its content, so that clients can keep it.
pub fn index() -> Value {
    static INDEX: OnceLock<Value> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let groups: BTreeSet<(&str, &str)> = resources().iter().map(|row| (row.group, row.version)).collect();
        let paths = groups.into_iter().filter_map(|(group, version)| {
            let path = document_path(group, version);
            let hash = hash(&document(group, version)?.to_string());
            Some((path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash:016X}") })))
        });
        json!({ "paths": paths.collect::<serde_json::Map<_, _>>() })
    });
    index.clone()
}

/// The document of a group and version, at `/openapi/v3/apis/GROUP/VERSION` or `/openapi/v3/api/v1`; none if there is
/// no such group and version.
pub fn document(group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Resource> = resources().iter().filter(|row| row.group == group && row.version == version).collect();
    if rows.is_empty() {
        return None;
    }
    let mut components = Components::new(Dialect::V3);
    rows.iter().for_each(|row| components.add_resource(row));
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of(&rows),
        "components": { "schemas": components.finish() },
    }))
}

/// The OpenAPI v2 document at `/openapi/v2`: the definitions of every group.
pub fn v2() -> Value {
    let mut components = Components::new(Dialect::V2);
    resources().iter().for_each(|row| components.add_resource(row));
    json!({ "swagger": "2.0", "info": info(), "paths": {}, "definitions": components.finish() })
}

fn info() -> Value {
    json!({ "title": "Shoal", "version": "v1.35.0" })
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// FNV-1a: tells versions of a document apart; nothing relies on more.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
