//! `FieldsV1`: a set of paths as JSON.
//!
//! ```text
//! {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:replicas": {}}}
//! ```
//! holds `.metadata.labels`, `.metadata.labels.app` and `.spec.replicas`. A step with nothing below it is in the set;
//! one with something below it is in the set if `.` is among it. Members are sorted, so equal sets are equal texts.

use serde_json::{Map, Value};

use super::set::Node;
use super::{Element, FieldSet};

const ITSELF: &str = ".";

impl FieldSet {
    /// The set as `FieldsV1`.
    pub fn encode(&self) -> Value {
        Value::Object(members(self))
    }

    /// Reads a `FieldsV1`. Kinds of steps that are not known are left out, as in Kubernetes.
    ///
    /// None if it is no such thing.
    pub fn decode(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (name, value) in fields.as_object()? {
            if name == ITSELF {
                continue;
            }
            let below = Self::decode(value)?;
            let member = value.as_object().is_some_and(|map| map.is_empty() || map.contains_key(ITSELF));
            if let Some(element) = Element::parse(name) {
                set.put(element, Node { member, below });
            }
        }
        Some(set)
    }
}

fn members(set: &FieldSet) -> Map<String, Value> {
    let node_value = |node: &Node| {
        let mut map = members(&node.below);
        if node.member && !map.is_empty() {
            map.insert(ITSELF.to_owned(), Value::Object(Map::new()));
        }
        Value::Object(map)
    };
    set.nodes().map(|(element, node)| (element.encode(), node_value(node))).collect()
}
