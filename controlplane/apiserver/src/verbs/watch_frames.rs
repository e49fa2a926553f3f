//! The frames of a watch: one JSON object a line, `{"type":"ADDED","object":{...}}`.
//!
//! A selector turns changes around: an object that begins to match is ADDED though it was only modified, one that
//! ceases to match is DELETED, shown as it last matched but with the revision of the change.

use bytes::Bytes;
use serde_json::{Value, json};
use shoal_api::Status;
use shoal_store::{Change, Revision};

use crate::negotiate::Form;
use crate::respond::View;
use crate::selection::Selection;
use crate::{errors, stored};

/// Turns changes into frames.
pub(crate) struct Frames {
    pub shown: View,
    pub selection: Selection,
    /// Whether a table has been sent: only the first one defines the columns.
    pub columns_sent: bool,
}

impl Frames {
    /// The frame of a change, unless the client is not concerned.
    pub(crate) fn change(&mut self, change: &Change) -> Result<Option<Bytes>, Status> {
        let before = change.previous.as_ref().filter(|_| !change.created);
        let (now_matches, matched) =
            (self.matches(change.current.as_ref(), change.revision)?, self.matches(before, change.revision)?);
        let (kind, bytes) = match (now_matches, matched, &change.current, before) {
            (true, false, Some(current), _) => ("ADDED", current),
            (true, true, Some(current), _) => ("MODIFIED", current),
            (false, true, _, Some(before)) => ("DELETED", before),
            _ => return Ok(None),
        };
        self.stored(kind, bytes, change.revision).map(Some)
    }

    /// The frame of an object that is there when the watch begins, if it is wanted.
    pub(crate) fn present(&mut self, bytes: &Bytes, revision: Revision) -> Result<Option<Bytes>, Status> {
        if self.matches(Some(bytes), revision)? { self.stored("ADDED", bytes, revision).map(Some) } else { Ok(None) }
    }

    /// A bookmark: the client has everything up to `revision`.
    pub(crate) fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = self.shown.resource;
        let object = match self.shown.form {
            Form::Table => {
                let partial =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                let row = json!({"cells": [], "object": partial});
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
                       "columnDefinitions": null, "rows": [row]})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Object | Form::AggregatedDiscovery => {
                let api_version = if resource.group.is_empty() {
                    resource.version.to_owned()
                } else {
                    format!("{}/{}", resource.group, resource.version)
                };
                json!({"kind": resource.kind, "apiVersion": api_version, "metadata": metadata})
            }
        };
        frame("BOOKMARK", object.to_string().as_bytes())
    }

    fn matches(&self, bytes: Option<&Bytes>, revision: Revision) -> Result<bool, Status> {
        let Some(bytes) = bytes else { return Ok(false) };
        if self.selection.is_everything() {
            return Ok(true);
        }
        let object: Value = stored::decode(bytes, revision).map_err(|error| errors::corrupt(&error))?;
        Ok(self.selection.matches(&object))
    }

    fn stored(&mut self, kind: &str, bytes: &Bytes, revision: Revision) -> Result<Bytes, Status> {
        if self.shown.form != Form::Table {
            return Ok(frame(kind, &self.shown.stored(bytes, revision)?));
        }
        let object = stored::decode(bytes, revision).map_err(|error| errors::corrupt(&error))?;
        let mut table = self.shown.object(object);
        if self.columns_sent {
            table["columnDefinitions"] = Value::Null;
        }
        self.columns_sent = true;
        Ok(frame(kind, table.to_string().as_bytes()))
    }
}

/// The frame that ends a watch with a failure.
pub(crate) fn error(status: &Status) -> Bytes {
    frame("ERROR", &serde_json::to_vec(status).unwrap_or_default())
}

fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(object.len() + 40);
    text.extend_from_slice(b"{\"type\":\"");
    text.extend_from_slice(kind.as_bytes());
    text.extend_from_slice(b"\",\"object\":");
    text.extend_from_slice(object);
    text.extend_from_slice(b"}\n");
    text.into()
}
