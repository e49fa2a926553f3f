//! One rule of a role: these verbs on these resources, or on these paths.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Attributes;

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// `get`, or `*`.
    pub verbs: Vec<String>,
    /// Empty text for core, `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// None for every name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// `/healthz`, `/healthz/*`, `*`.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// The rules of a Role or ClusterRole; what cannot be read grants nothing.
    pub fn of(role: &Value) -> Vec<Self> {
        let rules = role.get("rules").and_then(Value::as_array).into_iter().flatten();
        rules.filter_map(|rule| Self::deserialize(rule).ok()).collect()
    }

    /// Whether it allows the request.
    pub fn allows(&self, request: &Attributes<'_>) -> bool {
        if !has(&self.verbs, request.verb) {
            return false;
        }
        match request.path {
            Some(path) => self.non_resource_urls.iter().any(|pattern| path_matches(pattern, path)),
            None => {
                has(&self.api_groups, request.group)
                    && self
                        .resources
                        .iter()
                        .any(|pattern| resource_matches(pattern, request.resource, request.subresource))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == request.name))
            }
        }
    }
}

pub(super) fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

/// `pods` is not `pods/log`; `*` is everything, `*/log` the log of everything.
pub(super) fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        None if pattern == "*" => true,
        None => subresource.is_empty() && pattern == resource,
        Some((head, tail)) => tail == subresource && (head == "*" || head == resource),
    }
}

pub(super) fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}
