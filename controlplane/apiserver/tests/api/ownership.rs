//! Managed fields of ordinary writes: who gets them, when they stay, how clients change them.

use serde_json::{Value, json};
use shoal_apiserver::Peer;

use crate::support::*;

fn entries(object: &Value) -> Vec<(String, String, String)> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| (text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"))).collect()
}

fn entry(manager: &str, operation: &str, subresource: &str) -> (String, String, String) {
    (manager.to_owned(), operation.to_owned(), subresource.to_owned())
}

#[tokio::test]
async fn a_writer_is_named_by_the_query_the_agent_or_the_user() {
    let api = Api::start().await;
    let agent = [("content-type", "application/json"), ("user-agent", "kubectl/v1.35.2 (linux/amd64) kubernetes/abc")];
    let created = api.send(admin(), "POST", CONFIG_MAPS, &agent, config_map("a").to_string()).await.json;
    assert_eq!(entries(&created), [entry("kubectl", "Update", "")]);
    assert_eq!(created["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}}}));

    let path = format!("{CONFIG_MAPS}/a?fieldManager=kubectl-edit");
    let merge = [("content-type", "application/merge-patch+json"), ("user-agent", "kubectl/v1.35.2")];
    let patched = api.send(admin(), "PATCH", &path, &merge, r#"{"data":{"b":"2"}}"#).await.json;
    assert_eq!(entries(&patched), [entry("kubectl", "Update", ""), entry("kubectl-edit", "Update", "")]);

    let internal = Peer::Internal("system:shoal:controllers".to_owned());
    let json = [("content-type", "application/json")];
    let made = api.send(internal, "POST", CONFIG_MAPS, &json, config_map("b").to_string()).await.json;
    assert_eq!(entries(&made), [entry("controllers", "Update", "")]);
}

#[tokio::test]
async fn writes_that_change_nothing_leave_version_and_times() {
    let api = Api::start().await;
    let created = api.create(CONFIG_MAPS, config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a?fieldManager=someone-else");
    let without = api.put(&path, config_map("a")).await;
    assert_eq!(without.json, created);
    assert_eq!(api.put(&path, created.clone()).await.json, created);
    assert_eq!(api.patch(&path, "merge", json!({"data": {"a": "1"}})).await.json, created);
}

#[tokio::test]
async fn status_and_scale_have_entries_of_their_own() {
    let api = Api::start().await;
    api.create(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let status = json!({"status": {"observedGeneration": 1, "replicas": 1}});
    let patched = api.patch(&format!("{path}/status?fieldManager=c"), "merge", status).await.json;
    let fields = &patched["metadata"]["managedFields"];
    assert!(entries(&patched).contains(&entry("c", "Update", "status")), "{fields}");
    let scale = json!({"spec": {"replicas": 7}});
    api.patch(&format!("{path}/scale?fieldManager=kubectl"), "merge", scale).await;
    let object = api.get(&path).await.json;
    assert!(entries(&object).contains(&entry("kubectl", "Update", "scale")));
    let refused = api.apply(&path, "helm", json!({"spec": {"replicas": 1}})).await;
    assert_eq!(
        refused.json["message"],
        "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[tokio::test]
async fn binding_a_pod_gives_nobody_its_node() {
    let api = Api::start().await;
    let created = api.create(PODS, pod("a")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(api.post(&format!("{PODS}/a/binding"), binding).await.code, 201);
    let bound = api.get(&format!("{PODS}/a")).await.json;
    assert_eq!(bound["metadata"]["managedFields"], created["metadata"]["managedFields"]);
}

#[tokio::test]
async fn clients_strip_and_migrate_managed_fields() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a");

    // What kubectl does when a client-side apply becomes a server-side one.
    let migrated = api
        .patch(
            &path,
            "json",
            json!([{"op": "replace", "path": "/metadata/managedFields/0/operation", "value": "Apply"}]),
        )
        .await;
    assert_eq!(entries(&migrated.json), [entry("shoal-admin", "Apply", "")], "{}", migrated.text);

    let stripped = api.patch(&path, "merge", json!({"metadata": {"managedFields": [{}]}})).await;
    assert_eq!(stripped.json["metadata"].get("managedFields"), None);
    // Nobody's stay nobody's until the first apply.
    let patched = api.patch(&path, "merge", json!({"data": {"b": "2"}})).await;
    assert_eq!(patched.json["metadata"].get("managedFields"), None);
    let mut other = config_map("a");
    other["data"]["a"] = "9".into();
    assert_eq!(
        api.apply(&path, "me", &other).await.json["message"],
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    let applied = api.apply(&path, "me", config_map("a")).await;
    assert_eq!(entries(&applied.json), [entry("me", "Apply", ""), entry("before-first-apply", "Update", "")]);
}

#[tokio::test]
async fn a_protobuf_body_is_tracked_too() {
    let api = Api::start().await;
    // k8s\0, Unknown{typeMeta{v1, ConfigMap}, raw{metadata{name: a}, data{k: v}}}.
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).expect("short")];
        bytes.extend_from_slice(content);
        bytes
    };
    let kind = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    let object = [field(1, &field(1, b"a")), field(2, &[field(1, b"k"), field(2, b"v")].concat())].concat();
    let body = [b"k8s\0".to_vec(), field(1, &kind), field(2, &object)].concat();
    let headers = [("content-type", "application/vnd.kubernetes.protobuf"), ("user-agent", "helm/4.1.4")];
    let created = api.send(admin(), "POST", CONFIG_MAPS, &headers, body).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(entries(&created.json), [entry("helm", "Update", "")]);
}

#[tokio::test]
async fn tables_do_not_show_who_owns_what() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = api.send(admin(), "GET", &format!("{CONFIG_MAPS}/a"), &accept, "").await.json;
    assert_eq!(table["rows"][0]["cells"].as_array().map(Vec::len), Some(3));
}
