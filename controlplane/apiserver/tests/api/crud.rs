//! Create, read, change: versions, conflicts, patches, strictness, dry runs.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let api = Api::start().await;
    let created = api.create(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(created["metadata"]["namespace"], "default");
    assert!(created["metadata"]["uid"].is_string());
    assert!(
        created["metadata"]["creationTimestamp"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 20)
    );

    let path = format!("{CONFIG_MAPS}/a");
    let read = api.get(&path).await;
    assert_eq!(read.json, created);
    assert!(read.headers.contains_key("audit-id"));

    let mut changed = created.clone();
    changed["data"]["a"] = "2".into();
    let updated = api.put(&path, changed.clone()).await;
    assert_eq!(updated.code, 200, "{}", updated.text);
    assert_ne!(updated.json["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);

    // The version that was read first is not the current one any more.
    let stale = api.put(&path, changed).await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.json["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest \
         version and try again"
    );

    assert_eq!(api.delete(&path).await.json["status"], "Success");
    let gone = api.get(&path).await;
    assert_eq!((gone.code, gone.json["message"].as_str()), (404, Some("configmaps \"a\" not found")));
}

#[tokio::test]
async fn a_second_create_says_that_it_exists() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let second = api.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!((second.code, second.json["reason"].as_str()), (409, Some("AlreadyExists")));
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let api = Api::start().await;
    let created = api.create(CONFIG_MAPS, config_map("a")).await;
    let again = api.put(&format!("{CONFIG_MAPS}/a"), config_map("a")).await;
    assert_eq!(again.json, created);
    let patched = api.patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"data": {"a": "1"}})).await;
    assert_eq!(patched.json, created);
}

#[tokio::test]
async fn names_are_generated() {
    let api = Api::start().await;
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "web-"});
    let first = api.create(CONFIG_MAPS, object.clone()).await;
    let second = api.create(CONFIG_MAPS, object).await;
    let name = first["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn three_kinds_of_patches_are_applied() {
    let api = Api::start().await;
    api.create(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");

    let merged = api.patch(&path, "merge", json!({"metadata": {"labels": {"tier": "front"}}})).await;
    assert_eq!(merged.code, 200, "{}", merged.text);
    assert_eq!(merged.json["metadata"]["labels"]["tier"], "front");
    assert_eq!(merged.json["metadata"]["generation"], 1);

    let containers = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}});
    let strategic = api.patch(&path, "strategic-merge", containers).await;
    assert_eq!(strategic.code, 200, "{}", strategic.text);
    assert_eq!(strategic.json["spec"]["template"]["spec"]["containers"][0]["image"], "hello:1");
    assert_eq!(strategic.json["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"], "A");
    assert_eq!(strategic.json["metadata"]["generation"], 2);

    let json = api.patch(&path, "json", json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])).await;
    assert_eq!(json.code, 200, "{}", json.text);
    assert_eq!(json.json["spec"]["replicas"], 5);

    let cbor = api.send(admin(), "PATCH", &path, &[("content-type", "application/apply-patch+cbor")], "").await;
    assert_eq!(cbor.code, 415);
}

#[tokio::test]
async fn a_patch_may_insist_on_a_version() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let patch = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "2"}});
    assert_eq!(api.patch(&format!("{CONFIG_MAPS}/a"), "merge", patch).await.code, 409);
}

#[tokio::test]
async fn unknown_fields_are_refused_reported_or_dropped() {
    let api = Api::start().await;
    let text = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":1,"replicas":2,"unknownField":1,
        "selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"a","image":"b"}]}}}}"#;
    let json = [("content-type", "application/json")];
    let strict = api.send(admin(), "POST", &format!("{DEPLOYMENTS}?fieldValidation=Strict"), &json, text).await;
    assert_eq!(strict.code, 400);
    let message = strict.json["message"].as_str().expect("a message");
    assert!(message.contains("strict decoding error: "), "{message}");
    assert!(
        message.contains("unknown field \"spec.unknownField\"")
            && message.contains("duplicate field \"spec.replicas\""),
        "{message}"
    );

    let warned = api.send(admin(), "POST", &format!("{DEPLOYMENTS}?fieldValidation=Warn"), &json, text).await;
    assert_eq!(warned.code, 201, "{}", warned.text);
    let warnings: Vec<&str> =
        warned.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect();
    assert!(warnings.contains(&"299 - \"unknown field \\\"spec.unknownField\\\"\""), "{warnings:?}");
    assert!(warned.json["spec"].get("unknownField").is_none());

    let patch = json!({"spec": {"nonsense": 1}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    let strict = api.send(admin(), "PATCH", &format!("{DEPLOYMENTS}/web?fieldValidation=Strict"), &merge, patch).await;
    assert_eq!(
        (strict.code, strict.json["message"].as_str()),
        (400, Some("strict decoding error: unknown field \"spec.nonsense\""))
    );
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}?dryRun=All");
    let dry = api.post(&path, config_map("a")).await;
    assert_eq!(dry.code, 201, "{}", dry.text);
    assert!(dry.json["metadata"]["uid"].is_string());
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    api.create(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(api.post(&path, config_map("a")).await.code, 409);
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/a?dryRun=All")).await.code, 200);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a")).await.code, 200);
}

#[tokio::test]
async fn status_and_spec_have_their_own_doors() {
    let api = Api::start().await;
    let mut created = api.create(DEPLOYMENTS, deployment("web")).await;
    created["status"] = json!({"replicas": 2, "observedGeneration": 1});
    created["spec"]["replicas"] = 9.into();
    let status = api.put(&format!("{DEPLOYMENTS}/web/status"), created.clone()).await;
    assert_eq!(status.code, 200, "{}", status.text);
    assert_eq!(status.json["status"]["replicas"], 2);
    assert_eq!(status.json["spec"]["replicas"], 2);
    assert_eq!(status.json["metadata"]["generation"], 1);
    let mut spec = status.json.clone();
    spec["status"]["replicas"] = 7.into();
    spec["spec"]["replicas"] = 3.into();
    let main = api.put(&format!("{DEPLOYMENTS}/web"), spec).await;
    assert_eq!(main.json["status"]["replicas"], 2);
    assert_eq!(main.json["spec"]["replicas"], 3);
    assert_eq!(main.json["metadata"]["generation"], 2);
}

#[tokio::test]
async fn the_scale_of_a_deployment_is_read_and_changed() {
    let api = Api::start().await;
    api.create(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scale = api.get(&path).await;
    assert_eq!((scale.json["kind"].as_str(), scale.json["spec"]["replicas"].as_i64()), (Some("Scale"), Some(2)));
    assert_eq!(scale.json["status"]["selector"], "app=web");
    let patched = api.patch(&path, "merge", json!({"spec": {"replicas": 4}})).await;
    assert_eq!(patched.json["spec"]["replicas"], 4, "{}", patched.text);
    assert_eq!(api.get(&format!("{DEPLOYMENTS}/web")).await.json["spec"]["replicas"], 4);
}

#[tokio::test]
async fn what_is_not_valid_is_refused_with_its_causes() {
    let api = Api::start().await;
    let refused = api.post(CONFIG_MAPS, config_map("Not_A_Name")).await;
    assert_eq!((refused.code, refused.json["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(refused.json["details"]["causes"][0]["field"], "metadata.name");
    assert_eq!(api.post(CONFIG_MAPS, json!({"kind": "Secret", "apiVersion": "v1"})).await.code, 400);
    let yaml = api
        .send(admin(), "POST", CONFIG_MAPS, &[("content-type", "application/yaml")], "metadata:\n  name: from-yaml\n")
        .await;
    assert_eq!(yaml.code, 201, "{}", yaml.text);
    let unknown = api.send(admin(), "POST", CONFIG_MAPS, &[("content-type", "text/plain")], "x").await;
    assert_eq!(unknown.code, 415);
    let large = "x".repeat(4 << 20);
    assert_eq!(api.send(admin(), "POST", CONFIG_MAPS, &[], large).await.code, 413);
}

#[tokio::test]
async fn a_protobuf_body_is_understood() {
    let api = Api::start().await;
    // runtime.Unknown: typeMeta {apiVersion v1, kind ConfigMap}, raw: ConfigMap{metadata{name "pb"}, data{"a": "1"}}.
    let raw: Vec<u8> =
        [&[0x0a, 0x04, 0x0a, 0x02][..], b"pb", &[0x12, 0x06, 0x0a, 0x01], b"a", &[0x12, 0x01], b"1"].concat();
    let types: Vec<u8> = [&[0x0a, 0x02][..], b"v1", &[0x12, 0x09], b"ConfigMap"].concat();
    let mut envelope = b"k8s\0".to_vec();
    envelope.extend([0x0a, u8::try_from(types.len()).expect("short")]);
    envelope.extend(&types);
    envelope.extend([0x12, u8::try_from(raw.len()).expect("short")]);
    envelope.extend(&raw);
    let content_type = [("content-type", "application/vnd.kubernetes.protobuf")];
    let created = api.send(admin(), "POST", CONFIG_MAPS, &content_type, envelope).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!((&created.json["metadata"]["name"], &created.json["data"]["a"]), (&json!("pb"), &json!("1")));
}

#[tokio::test]
async fn both_spellings_of_an_event_are_one_object() {
    let api = Api::start().await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "reason": "Started", "type": "Normal",
        "message": "hello", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
    api.create("/api/v1/namespaces/default/events", event).await;
    let other = api.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await;
    assert_eq!((&other.json["note"], &other.json["apiVersion"]), (&json!("hello"), &json!("events.k8s.io/v1")));
    let list = api.get("/apis/events.k8s.io/v1/namespaces/default/events").await;
    assert_eq!(list.json["items"][0]["regarding"]["name"], "p");
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Api::start().await;
    api.create(PODS, pod("p")).await;
    let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let bound = api.post(&format!("{PODS}/p/binding"), binding("n1")).await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    let pod = api.get(&format!("{PODS}/p")).await.json;
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert!(
        pod["status"]["conditions"]
            .as_array()
            .expect("conditions")
            .iter()
            .any(|one| one["type"] == "PodScheduled" && one["status"] == "True")
    );
    assert_eq!(api.post(&format!("{PODS}/p/binding"), binding("n2")).await.code, 409);

    let log = api.get(&format!("{PODS}/p/log?tailLines=5&follow=true")).await;
    assert_eq!(log.text, "/containerLogs/default/p/main?follow=true&tailLines=5");
}
