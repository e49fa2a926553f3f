//! The ends of objects: finalizers, grace, namespaces, collections.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let api = Api::start().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.create(CONFIG_MAPS, object).await;
    let path = format!("{CONFIG_MAPS}/a");
    let marked = api.delete(&path).await;
    assert_eq!(marked.code, 200);
    assert!(marked.json["metadata"]["deletionTimestamp"].is_string());

    let added =
        api.patch(&path, "merge", json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})).await;
    assert_eq!(added.code, 422, "{}", added.text);
    assert_eq!(api.get(&path).await.code, 200);
    let released = api.patch(&path, "merge", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(released.code, 200, "{}", released.text);
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_running_pod_is_given_its_grace() {
    let api = Api::start().await;
    api.create(PODS, pod("p")).await;
    let path = format!("{PODS}/p");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(api.post(&format!("{path}/binding"), binding).await.code, 201);
    let marked = api.delete(&path).await;
    assert_eq!(marked.json["metadata"]["deletionGracePeriodSeconds"], 30, "{}", marked.text);
    assert_eq!(api.get(&path).await.code, 200);

    let other = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "another"}});
    let json = [("content-type", "application/json")];
    assert_eq!(api.send(admin(), "DELETE", &path, &json, other.to_string()).await.code, 409);
    let uid = marked.json["metadata"]["uid"].as_str().expect("a uid");
    let last =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    assert_eq!(api.send(node("n1"), "DELETE", &path, &json, last.to_string()).await.code, 200);
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn an_unscheduled_pod_goes_at_once() {
    let api = Api::start().await;
    api.create(PODS, pod("p")).await;
    assert_eq!(api.delete(&format!("{PODS}/p")).await.code, 200);
    assert_eq!(api.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test]
async fn propagation_leaves_its_finalizer() {
    let api = Api::start().await;
    api.create(DEPLOYMENTS, deployment("web")).await;
    let marked = api.delete(&format!("{DEPLOYMENTS}/web?propagationPolicy=Foreground")).await;
    assert_eq!(marked.json["metadata"]["finalizers"], json!(["foregroundDeletion"]), "{}", marked.text);
    let orphaned = api.delete(&format!("{DEPLOYMENTS}/web?propagationPolicy=Orphan")).await;
    assert_eq!(orphaned.json["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn a_namespace_goes_when_its_content_is_gone() {
    let api = Api::start().await;
    api.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}}))
        .await;
    let created = api.get("/api/v1/namespaces/web").await.json;
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "web");
    let marked = api.delete("/api/v1/namespaces/web").await;
    assert_eq!(marked.json["status"]["phase"], "Terminating", "{}", marked.text);

    let refused = api.post("/api/v1/namespaces/web/configmaps", config_map("a")).await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.json["details"]["causes"][0]["reason"], "NamespaceTerminating");

    let mut finalized = marked.json.clone();
    finalized["spec"]["finalizers"] = json!([]);
    let last = api.put("/api/v1/namespaces/web/finalize", finalized).await;
    assert_eq!(last.code, 200, "{}", last.text);
    assert_eq!(api.get("/api/v1/namespaces/web").await.code, 404);
    assert_eq!(api.post("/api/v1/namespaces/web/configmaps", config_map("a")).await.code, 404);
    assert_eq!(api.delete("/api/v1/namespaces/kube-system").await.code, 403);
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_labels() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"keep": (name == "b").to_string()});
        api.create(CONFIG_MAPS, object).await;
    }
    let deleted = api.delete(&format!("{CONFIG_MAPS}?labelSelector=keep%3Dfalse")).await;
    assert_eq!(deleted.json["items"].as_array().map(Vec::len), Some(2), "{}", deleted.text);
    let left = api.get(CONFIG_MAPS).await;
    assert_eq!(left.json["items"].as_array().map(Vec::len), Some(1));
}
