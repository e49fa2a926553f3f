//! Tables: what `kubectl get` prints, computed here from the columns of a resource's row.
//!
//! The form is `meta.k8s.io/v1` `Table`. The helpers for cells that several kinds share are in [`cells`].

pub(crate) mod cells;
mod duration;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use duration::human_duration;

use crate::resource::Resource;

/// What each row holds of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// A table of these objects, in this order, without list metadata (the caller sets `metadata`).
pub fn table(resource: &Resource, objects: &[&Value], include: IncludeObject, now: Timestamp) -> Value {
    let columns: Vec<Value> = resource
        .columns
        .iter()
        .map(|column| {
            json!({"name": column.name, "type": column.kind, "format": column.format, "description": column.description, "priority": column.priority})
        })
        .collect();
    let rows: Vec<Value> = objects.iter().map(|object| row(resource, object, include, now)).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows})
}

fn row(resource: &Resource, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let cells: Vec<Value> = resource.columns.iter().map(|column| (column.cell)(object, now)).collect();
    match include {
        IncludeObject::None => json!({"cells": cells, "object": null}),
        IncludeObject::Metadata => json!({"cells": cells, "object": partial_object_metadata(object)}),
        IncludeObject::Object => json!({"cells": cells, "object": object}),
    }
}

/// The object's metadata alone, as `PartialObjectMetadata`.
pub fn partial_object_metadata(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// The metadata of each, as `PartialObjectMetadataList`, with the list metadata that is given.
pub fn partial_object_metadata_list(objects: &[&Value], list_metadata: &Value) -> Value {
    let items: Vec<Value> = objects.iter().map(|object| partial_object_metadata(object)).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata, "items": items})
}
