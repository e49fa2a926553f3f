//! Event: what happened to an object. Served by two groups, stored once, in the older spelling.

use jiff::Timestamp;
use serde_json::Value;

use crate::metadata;
use crate::resource::{Column, Resource, SelectableField, Strategy};
use crate::table::cells::{column, integer, since, text, wide};
use crate::validation::FieldError;

pub(super) const ROW: Resource = Resource {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "io.k8s.api.core.v1.Event",
    storage: "core/events",
    columns: COLUMNS,
    create_on_update: true,
    short_lived: true,
    selectable_fields: FIELDS,
    strategy: &Event,
    ..Resource::BASE
};
pub(super) const EVENTS_ROW: Resource =
    Resource { group: "events.k8s.io", schema: "io.k8s.api.events.v1.Event", ..ROW };

const COLUMNS: &[Column] = &[
    column("Last Seen", "When it was last seen.", |event, now| last_seen(event, now).into()),
    column("Type", "Normal or Warning.", |event, _| text(event, "/type").into()),
    column("Reason", "Why, in one word.", |event, _| text(event, "/reason").into()),
    column("Object", "What it is about.", |event, _| subject(event).into()),
    wide("Subobject", "The part that it is about.", |event, _| of(event, "fieldPath").into()),
    wide("Source", "Who says so.", |event, _| source(event).into()),
    column("Message", "What happened.", |event, _| either(event, "/message", "/note").trim().into()),
    wide("First Seen", "When it was first seen.", |event, now| first_seen(event, now).into()),
    wide("Count", "How often it was seen.", |event, _| count(event).into()),
    Column { priority: 1, ..crate::table::cells::NAME },
];

/// The text at the first pointer (the older spelling) or else the second.
fn either<'a>(event: &'a Value, older: &str, newer: &str) -> &'a str {
    match text(event, older) {
        "" => text(event, newer),
        found => found,
    }
}

fn of<'a>(event: &'a Value, field: &str) -> &'a str {
    either(event, &format!("/involvedObject/{field}"), &format!("/regarding/{field}"))
}

fn subject(event: &Value) -> String {
    format!("{}/{}", of(event, "kind").to_lowercase(), of(event, "name"))
}

fn source(event: &Value) -> String {
    let component = match either(event, "/source/component", "/deprecatedSource/component") {
        "" => either(event, "/reportingComponent", "/reportingController"),
        component => component,
    };
    match either(event, "/source/host", "/deprecatedSource/host") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

fn first_time(event: &Value) -> &str {
    match either(event, "/firstTimestamp", "/deprecatedFirstTimestamp") {
        "" => either(event, "/eventTime", "/metadata/creationTimestamp"),
        time => time,
    }
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    since(Some(first_time(event)), now)
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    let last = [text(event, "/series/lastObservedTime"), either(event, "/lastTimestamp", "/deprecatedLastTimestamp")];
    since(Some(last.into_iter().find(|time| !time.is_empty()).unwrap_or(first_time(event))), now)
}

fn count(event: &Value) -> i64 {
    [integer(event, "/series/count"), integer(event, "/count"), integer(event, "/deprecatedCount")]
        .into_iter()
        .max()
        .unwrap_or(0)
        .max(1)
}

const FIELDS: &[SelectableField] = &[
    SelectableField { name: "involvedObject.kind", value: |event| of(event, "kind").to_owned() },
    SelectableField { name: "involvedObject.namespace", value: |event| of(event, "namespace").to_owned() },
    SelectableField { name: "involvedObject.name", value: |event| of(event, "name").to_owned() },
    SelectableField { name: "involvedObject.uid", value: |event| of(event, "uid").to_owned() },
    SelectableField { name: "involvedObject.apiVersion", value: |event| of(event, "apiVersion").to_owned() },
    SelectableField { name: "involvedObject.resourceVersion", value: |event| of(event, "resourceVersion").to_owned() },
    SelectableField { name: "involvedObject.fieldPath", value: |event| of(event, "fieldPath").to_owned() },
    SelectableField { name: "regarding.kind", value: |event| of(event, "kind").to_owned() },
    SelectableField { name: "regarding.namespace", value: |event| of(event, "namespace").to_owned() },
    SelectableField { name: "regarding.name", value: |event| of(event, "name").to_owned() },
    SelectableField { name: "regarding.uid", value: |event| of(event, "uid").to_owned() },
    SelectableField { name: "reason", value: |event| text(event, "/reason").to_owned() },
    SelectableField {
        name: "reportingComponent",
        value: |event| either(event, "/reportingComponent", "/reportingController").to_owned(),
    },
    SelectableField {
        name: "reportingController",
        value: |event| either(event, "/reportingComponent", "/reportingController").to_owned(),
    },
    SelectableField {
        name: "source",
        value: |event| either(event, "/source/component", "/reportingComponent").to_owned(),
    },
    SelectableField { name: "type", value: |event| text(event, "/type").to_owned() },
];

struct Event;

impl Strategy for Event {
    fn check(&self, event: &Value, problems: &mut Vec<FieldError>) {
        let namespace = metadata::namespace(event).unwrap_or_default();
        let about = of(event, "namespace");
        let fits =
            if about.is_empty() { matches!(namespace, "" | "default" | "kube-system") } else { about == namespace };
        if !fits {
            problems.push(FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace"));
        }
    }
}
