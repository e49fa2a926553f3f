//! Discovery documents: which groups, versions and resources there are, all from the resource table.
//!
//! `/api` and `/apis` are asked for in the aggregated form by every client of today; older ones ask for the plain
//! lists, and then for one resource list a version.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::resource::{Resource, Subresource, resources};

/// `/api` as `APIGroupDiscoveryList` v2.
pub fn aggregated_core() -> Value {
    aggregated(&[""])
}

/// `/apis` as `APIGroupDiscoveryList` v2.
pub fn aggregated_groups() -> Value {
    aggregated(&groups())
}

/// `/api` as `APIVersions`. `server_address` is what clients without another are told: `host:port`.
pub fn core_versions(server_address: &str) -> Value {
    let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]);
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses})
}

/// `/apis` as `APIGroupList`.
pub fn group_list() -> Value {
    let groups: Vec<Value> = groups().into_iter().filter_map(group_body).map(Value::Object).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP` as `APIGroup`; none when there is no such group.
pub fn group(name: &str) -> Option<Value> {
    let mut group = group_body(name).filter(|_| !name.is_empty())?;
    group.insert("kind".to_owned(), "APIGroup".into());
    group.insert("apiVersion".to_owned(), "v1".into());
    Some(Value::Object(group))
}

/// `/api/v1` (with an empty group) or `/apis/GROUP/VERSION` as `APIResourceList`; none when there is no such version.
pub fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for row in rows(group, version) {
        list.push(plain_resource(row));
        list.extend(row.subresources.iter().map(|subresource| plain_subresource(row, subresource)));
    }
    if list.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

/// The groups, core excepted, in the order of the table.
pub fn groups() -> Vec<&'static str> {
    let mut seen = BTreeSet::from([""]);
    resources().iter().map(|row| row.group).filter(|group| seen.insert(group)).collect()
}

/// The versions of a group, the preferred one first.
pub fn versions(group: &str) -> Vec<&'static str> {
    let mut seen = BTreeSet::new();
    resources()
        .iter()
        .filter(|row| row.group == group)
        .map(|row| row.version)
        .filter(|version| seen.insert(*version))
        .collect()
}

fn rows(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    resources().iter().filter(move |row| row.group == group && row.version == version)
}

fn group_body(name: &str) -> Option<Map<String, Value>> {
    let versions: Vec<Value> = versions(name)
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    json!({"name": name, "versions": versions, "preferredVersion": preferred}).as_object().cloned()
}

fn plain_resource(row: &Resource) -> Value {
    let mut entry = json!({"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind, "verbs": row.verbs});
    for (field, list) in [("shortNames", row.short_names), ("categories", row.categories)] {
        if !list.is_empty() {
            entry[field] = json!(list);
        }
    }
    entry
}

fn plain_subresource(row: &Resource, subresource: &Subresource) -> Value {
    let mut entry = json!({"name": format!("{}/{}", row.plural, subresource.name), "singularName": "", "namespaced": row.namespaced,
                           "kind": subresource.kind, "verbs": subresource.verbs});
    if (subresource.group, subresource.version) != (row.group, row.version) {
        entry["group"] = subresource.group.into();
        entry["version"] = subresource.version.into();
    }
    entry
}

fn aggregated(groups: &[&str]) -> Value {
    let items: Vec<Value> = groups.iter().map(|group| aggregated_group(group)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions(group)
        .iter()
        .map(|version| {
            let resources: Vec<Value> = rows(group, version).map(aggregated_resource).collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(row: &Resource) -> Value {
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    for (field, list) in [("shortNames", row.short_names), ("categories", row.categories)] {
        if !list.is_empty() {
            entry[field] = json!(list);
        }
    }
    if !row.subresources.is_empty() {
        let list: Vec<Value> = row
            .subresources
            .iter()
            .map(|subresource| {
                let kind =
                    json!({"group": subresource.group, "version": subresource.version, "kind": subresource.kind});
                json!({"subresource": subresource.name, "responseKind": kind, "verbs": subresource.verbs})
            })
            .collect();
        entry["subresources"] = list.into();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_every_resource() {
        let count: usize = resources().len();
        let items = |list: Value| list["items"].as_array().cloned().unwrap_or_default();
        let aggregated: usize = items(aggregated_core())
            .iter()
            .chain(&items(aggregated_groups()))
            .flat_map(|group| group["versions"].as_array().cloned().unwrap_or_default())
            .map(|version| version["resources"].as_array().map_or(0, Vec::len))
            .sum();
        assert_eq!(aggregated, count);
        for row in resources() {
            let list = resource_list(row.group, row.version).unwrap();
            assert!(
                list["resources"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|entry| entry["name"] == row.plural && entry["kind"] == row.kind)
            );
        }
        assert_eq!(resource_list("nope", "v1"), None);
    }

    #[test]
    fn a_scale_speaks_autoscaling() {
        let list = resource_list("apps", "v1").unwrap();
        let scale = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == "deployments/scale")
            .unwrap()
            .clone();
        assert_eq!((&scale["group"], &scale["kind"]), (&json!("autoscaling"), &json!("Scale")));
        assert_eq!(group("apps").unwrap()["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(group(""), None);
    }
}
