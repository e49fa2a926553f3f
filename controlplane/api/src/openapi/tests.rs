//! What kubectl looks for in the documents.

use serde_json::Value;

use super::*;

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_of_every_document_is_in_it() {
    let groups: BTreeSet<_> = resources().iter().map(|row| (row.group, row.version)).collect();
    for (group, version) in groups {
        let document = document(group, version).unwrap();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{group}/{version}: {reference}");
        }
    }
    let document = v2();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.iter().all(|reference| document.pointer(&reference[1..]).is_some()));
}

#[test]
fn deployments_can_be_explained_patched_and_validated() {
    let document = document("apps", "v1").unwrap();
    let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    assert!(patch["requestBody"]["content"]["application/apply-patch+yaml"].is_object());
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
}

#[test]
fn the_index_names_every_document_by_its_hash() {
    let index = index();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert!(index["paths"]["api/v1"].is_object());
    assert_eq!(super::index(), index);
    assert_eq!(document("no.such.group", "v1"), None);
}

#[test]
fn descriptions_are_of_fields_that_exist() {
    for line in include_str!("../schema/descriptions.txt").lines() {
        let (subject, _) = line.split_once(": ").unwrap();
        let (message, field) =
            subject.split_once('.').map_or((subject, None), |(message, field)| (message, Some(field)));
        let known = crate::schema::table().messages().iter().any(|known| {
            let named = message == "*" || known.name.rsplit('.').next() == Some(message);
            named && field.is_none_or(|field| known.fields.iter().any(|known| known.name == field))
        });
        assert!(known, "{subject}");
    }
}
