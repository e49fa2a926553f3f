//! `core/v1` and `events.k8s.io/v1` events are one storage with two spellings; this file knows both.
//!
//! Stored is the core spelling. `note` is `message`, `regarding` is `involvedObject`, and what only the older API has
//! carries the prefix `deprecated` in the newer one.

use serde_json::{Map, Value};

/// Pairs of (core, events.k8s.io) names for the same field.
const FIELDS: [(&str, &str); 7] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Whether objects of this group need [`serve`] and [`store`].
pub(crate) fn is_other_spelling(group: &str) -> bool {
    group == "events.k8s.io"
}

/// A stored (core) event in the spelling of `events.k8s.io`.
pub(crate) fn serve(event: &mut Value) {
    rename(event, "events.k8s.io/v1", |map| FIELDS.iter().for_each(|(core, new)| move_field(map, core, new)));
}

/// An `events.k8s.io` event in the spelling that is stored.
pub(crate) fn store(event: &mut Value) {
    rename(event, "v1", |map| FIELDS.iter().for_each(|(core, new)| move_field(map, new, core)));
}

fn rename(event: &mut Value, api_version: &str, change: impl Fn(&mut Map<String, Value>)) {
    if let Some(map) = event.as_object_mut() {
        change(map);
        map.insert("apiVersion".to_owned(), api_version.into());
    }
}

fn move_field(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_both_spellings() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "a"}, "count": 2, "reason": "r"});
        let mut event = core.clone();
        serve(&mut event);
        assert_eq!(event["note"], "m");
        assert_eq!(event["apiVersion"], "events.k8s.io/v1");
        store(&mut event);
        assert_eq!(event, core);
    }
}
