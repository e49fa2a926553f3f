//! The `patch` operations of the resources.

use serde_json::{Map, Value, json};

use crate::resource::Resource;

const MEDIA_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The paths of resources and subresources that can be patched.
pub(super) fn of(rows: &[&Resource]) -> Map<String, Value> {
    let mut paths = Map::new();
    for row in rows {
        let path = object_path(row);
        if row.verbs.contains(&"patch") {
            paths.insert(path.clone(), item(row, (row.group, row.version, row.kind), row.schema));
        }
        for subresource in row.subresources.iter().filter(|subresource| subresource.verbs.contains(&"patch")) {
            let kind = (subresource.group, subresource.version, subresource.kind);
            let schema =
                crate::schema::of_kind(kind.0, kind.1, kind.2).map_or(row.schema, |schema| schema.message().name);
            paths.insert(format!("{path}/{}", subresource.name), item(row, kind, schema));
        }
    }
    paths
}

fn object_path(row: &Resource) -> String {
    let root = if row.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", row.group) };
    let namespace = if row.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("{root}/{}{namespace}/{}/{{name}}", row.version, row.plural)
}

fn item(row: &Resource, (group, version, kind): (&str, &str, &str), schema: &str) -> Value {
    let mut parameters = vec![in_path("name")];
    if row.namespaced {
        parameters.push(in_path("namespace"));
    }
    let body = json!({ "schema": { "type": "object" } });
    let content: Map<String, Value> = MEDIA_TYPES.iter().map(|media| ((*media).to_owned(), body.clone())).collect();
    let query = ["dryRun", "fieldManager", "fieldValidation", "force"].map(in_query);
    let answer = json!({ "$ref": format!("#/components/schemas/{schema}") });
    json!({
        "parameters": parameters,
        "patch": {
            "operationId": format!("patch{}{kind}In{}", row.kind, row.plural),
            "parameters": query,
            "requestBody": { "required": true, "content": content },
            "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": answer } } } },
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
        },
    })
}

fn in_path(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } })
}

fn in_query(name: &str) -> Value {
    let kind = if name == "force" { "boolean" } else { "string" };
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}
