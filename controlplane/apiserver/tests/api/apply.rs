//! Server-side apply: creating, changing, giving up, conflicts, what is refused.

use serde_json::{Value, json};

use crate::support::*;

fn replicas(number: i64) -> Value {
    let mut object = deployment("web");
    object["spec"]["replicas"] = number.into();
    object
}

fn owned<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("managed fields");
    let found = entries.iter().find(|entry| entry["manager"] == manager);
    found.map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

#[tokio::test]
async fn what_is_absent_is_created_and_then_changed() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let created = api.apply(&path, "kubectl&fieldValidation=Strict&force=false", replicas(2)).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let entry = &created.json["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"], &entry["apiVersion"], &entry["fieldsType"]),
        (&json!("kubectl"), &json!("Apply"), &json!("apps/v1"), &json!("FieldsV1"))
    );
    // Defaults are nobody's.
    assert_eq!(created.json["spec"]["progressDeadlineSeconds"], 600);
    assert_eq!(
        entry["fieldsV1"]["f:spec"],
        json!({"f:replicas": {}, "f:selector": {}, "f:template": {"f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:image": {}, "f:name": {}}}}}})
    );
    assert_eq!(api.get(&path).await.json, created.json);

    let again = api.apply(&path, "kubectl", replicas(2)).await;
    assert_eq!((again.code, &again.json), (200, &created.json));
    let changed = api.apply(&path, "kubectl", replicas(3)).await;
    assert_eq!((changed.code, &changed.json["spec"]["replicas"]), (200, &json!(3)));
    assert_eq!(changed.json["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_configuration_may_be_yaml() {
    let api = Api::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: {tier: front}\ndata:\n  a: '1'\n  b: |\n    two\n";
    let path = format!("{CONFIG_MAPS}/a");
    let created = api.apply(&path, "me", yaml).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.json["data"], json!({"a": "1", "b": "two\n"}));

    let fewer = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata: {b: two}\n";
    let changed = api.apply(&path, "me", fewer).await;
    assert_eq!(changed.json["data"], json!({"b": "two"}));
    assert_eq!(changed.json["metadata"].get("labels"), None);
}

#[tokio::test]
async fn a_conflict_names_the_owner_and_force_takes_the_field() {
    let api = Api::start().await;
    let headers = [("content-type", "application/json")];
    let path = format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply");
    api.send(admin(), "POST", &path, &headers, replicas(2).to_string()).await;
    let path = format!("{DEPLOYMENTS}/web");

    let refused = api.apply(&path, "helm&force=false", replicas(3)).await;
    assert_eq!(
        (refused.code, refused.json["message"].as_str()),
        (
            409,
            Some(
                "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
            )
        )
    );
    assert_eq!(
        refused.json["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "field": ".spec.replicas",
                "message": "conflict with \"kubectl-client-side-apply\" using apps/v1"}])
    );

    let taken = api.apply(&path, "helm&force=true", replicas(3)).await;
    assert_eq!((taken.code, &taken.json["spec"]["replicas"]), (200, &json!(3)), "{}", taken.text);
    assert_eq!(owned(&taken.json, "helm")["f:spec"]["f:replicas"], json!({}));
    assert_eq!(owned(&taken.json, "kubectl-client-side-apply")["f:spec"].get("f:replicas"), None);
    let shared = api.apply(&path, "other", replicas(3)).await;
    assert_eq!(shared.code, 200, "{}", shared.text);
}

#[tokio::test]
async fn what_is_no_longer_applied_goes_and_gets_its_default() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut object = replicas(3);
    object["metadata"]["labels"] = json!({"a": "1", "b": "2"});
    object["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
    object["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    api.apply(&path, "helm", &object).await;
    api.patch(&path, "merge", json!({"metadata": {"labels": {"c": "3"}}})).await;

    let mut fewer = deployment("web");
    fewer["spec"].as_object_mut().expect("an object").remove("replicas");
    fewer["metadata"]["labels"] = json!({"b": "2"});
    let changed = api.apply(&path, "helm", &fewer).await;
    assert_eq!(changed.code, 200, "{}", changed.text);
    assert_eq!(changed.json["spec"]["replicas"], 1);
    assert_eq!(changed.json["metadata"]["labels"], json!({"b": "2", "c": "3"}));
    let container = &changed.json["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((container.get("env"), container.get("ports")), (None, None));
}

#[tokio::test]
async fn nulls_as_helm_sends_them_unset_fields() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut object = replicas(3);
    object["metadata"]["creationTimestamp"] = Value::Null;
    object["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    object["spec"]["template"]["spec"]["containers"][0]["resources"] = Value::Null;
    object["spec"]["strategy"] = Value::Null;
    object["status"] = json!({});
    let created = api.apply(&path, "helm&fieldValidation=Strict", &object).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert!(created.json["metadata"]["creationTimestamp"].is_string());
    assert_eq!(created.json["spec"]["strategy"]["type"], "RollingUpdate");

    object["spec"]["replicas"] = Value::Null;
    let changed = api.apply(&path, "helm", &object).await;
    assert_eq!(changed.json["spec"]["replicas"], 1, "{}", changed.text);
    assert_eq!(changed.json["metadata"]["creationTimestamp"], created.json["metadata"]["creationTimestamp"]);
    assert_eq!(changed.json["spec"]["template"]["metadata"].get("creationTimestamp"), None);
    let again = api.apply(&path, "helm", &object).await;
    assert_eq!(again.json, changed.json);
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let nameless =
        api.send(admin(), "PATCH", &path, &[("content-type", "application/apply-patch+yaml")], "kind: ConfigMap").await;
    assert_eq!(
        (nameless.code, nameless.json["message"].as_str()),
        (
            422,
            Some("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
        )
    );
    let merge = [("content-type", "application/merge-patch+json")];
    let forced = api.send(admin(), "PATCH", &format!("{path}?force=true"), &merge, "{}").await;
    assert_eq!(forced.code, 422);

    let refusals = [
        (json!({"metadata": {"name": "b"}}), 400, "the name of the object (b) does not match the name on the URL (a)"),
        (json!({"metadata": {"name": "a", "namespace": "other"}}), 400, "does not match the namespace"),
        (json!({"metadata": {"name": "a", "managedFields": []}}), 400, "metadata.managedFields must be nil"),
        (json!({"kind": "Secret"}), 400, "does not match the expected kind"),
        (json!({"datum": {}}), 400, "strict decoding error: unknown field \"datum\""),
        (json!({"metadata": {"name": "a", "finalizers": ["x.example/a", "x.example/a"]}}), 400, "duplicate entries"),
    ];
    for (configuration, code, message) in refusals {
        let answer = api.apply(&path, "me&fieldValidation=Strict", &configuration).await;
        assert_eq!(answer.code, code, "{configuration}: {}", answer.text);
        assert!(answer.json["message"].as_str().is_some_and(|text| text.contains(message)), "{}", answer.text);
    }
    assert_eq!(api.apply(&path, "me", "a: [").await.code, 400);
    assert_eq!(api.get(&path).await.code, 404);

    let reader = user("reader");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let body = config_map("a").to_string();
    let forbidden = api.send(reader, "PATCH", &format!("{path}?fieldManager=me"), &headers, body).await;
    assert_eq!(forbidden.code, 403);
}

#[tokio::test]
async fn who_may_patch_but_not_create_does_not_create() {
    let api = Api::start().await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "patcher"}, "rules": rules});
    api.create("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", role).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "patcher"}]});
    api.create("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    let headers = [("content-type", "application/apply-patch+yaml")];
    let apply = |peer| {
        let path = format!("{CONFIG_MAPS}/a?fieldManager=me");
        let api = &api;
        async move { api.send(peer, "PATCH", &path, &headers, config_map("a").to_string()).await.code }
    };
    assert_eq!(apply(user("patcher")).await, 403);
    assert_eq!(apply(admin()).await, 201);
    assert_eq!(apply(user("patcher")).await, 200);
}

#[tokio::test]
async fn a_dry_run_shows_and_keeps_nothing() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let shown = api.apply(&path, "me&dryRun=All", config_map("a")).await;
    assert_eq!((shown.code, &shown.json["data"]), (201, &json!({"a": "1"})), "{}", shown.text);
    assert_eq!(api.get(&path).await.code, 404);
    let created = api.apply(&path, "me", config_map("a")).await;
    let mut other = config_map("a");
    other["data"]["a"] = "2".into();
    assert_eq!(api.apply(&path, "me&dryRun=All", other).await.json["data"]["a"], "2");
    assert_eq!(api.get(&path).await.json, created.json);
}

#[tokio::test]
async fn status_and_main_are_applied_apart() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    api.apply(&path, "kubectl", replicas(2)).await;
    let mut wanted = replicas(9);
    wanted["status"] = json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]});
    let applied = api.apply(&format!("{path}/status"), "controller", &wanted).await;
    assert_eq!(applied.code, 200, "{}", applied.text);
    assert_eq!(
        (&applied.json["spec"]["replicas"], &applied.json["status"]["observedGeneration"]),
        (&json!(2), &json!(1))
    );
    let entries = applied.json["metadata"]["managedFields"].as_array().expect("managed fields");
    let entry = entries.iter().find(|entry| entry["manager"] == "controller").expect("an entry");
    assert_eq!(entry["subresource"], "status");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {"f:observedGeneration": {}, "f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:type": {}, "f:status": {}}}}})
    );
    wanted["spec"]["replicas"] = 2.into();
    let main = api.apply(&path, "kubectl", &wanted).await;
    assert_eq!(owned(&main.json, "kubectl").get("f:status"), None, "{}", main.text);
    assert_eq!(api.apply(&format!("{DEPLOYMENTS}/none/status"), "a", json!({})).await.code, 404);
}

#[tokio::test]
async fn a_scale_is_applied() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut object = deployment("web");
    object["spec"].as_object_mut().expect("an object").remove("replicas");
    api.apply(&path, "kubectl", &object).await;
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let scaled = api.apply(&format!("{path}/scale"), "hpa&force=true", scale).await;
    assert_eq!((scaled.code, &scaled.json["spec"]["replicas"]), (200, &json!(4)), "{}", scaled.text);
    let object = api.get(&path).await.json;
    assert_eq!(owned(&object, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    let refused = api.apply(&path, "kubectl", replicas(1)).await;
    assert_eq!(
        refused.json["message"],
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\": .spec.replicas"
    );
}

#[tokio::test]
async fn a_configuration_may_insist_on_a_version() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    api.apply(&path, "me", config_map("a")).await;
    let mut stale = config_map("a");
    stale["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(api.apply(&path, "me", &stale).await.code, 409);
    stale["metadata"] = json!({"name": "a", "uid": "another"});
    assert_eq!(api.apply(&path, "me", &stale).await.code, 409);
}

#[tokio::test]
async fn of_two_who_apply_at_once_one_creates() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let with = |key: &str| {
        let mut object = config_map("a");
        object["data"] = json!({ key: "1" });
        object
    };
    let (one, two) = tokio::join!(api.apply(&path, "one", with("x")), api.apply(&path, "two", with("y")));
    let mut codes = [one.code, two.code];
    codes.sort_unstable();
    assert_eq!(codes, [200, 201], "{} {}", one.text, two.text);
    let object = api.get(&path).await.json;
    assert_eq!(object["data"], json!({"x": "1", "y": "1"}));
    assert_eq!(object["metadata"]["managedFields"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_namespace_keeps_the_label_that_is_the_servers() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/team";
    let with = |labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": labels}});
    let created = api.apply(path, "me", with(json!({"a": "1"}))).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let changed = api.apply(path, "me", with(Value::Null)).await;
    assert_eq!(changed.json["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "team"}), "{}", changed.text);
    assert_eq!(changed.json["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test]
async fn services_keep_what_was_allocated() {
    let api = Api::start().await;
    let path = format!("{SERVICES}/web");
    let created = api.apply(&path, "helm", service("web", "NodePort")).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(owned(&created.json, "helm")["f:spec"].get("f:clusterIP"), None);
    let mut two = service("web", "NodePort");
    two["spec"]["ports"] = json!([{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81}]);
    let changed = api.apply(&path, "helm", two).await;
    assert_eq!(changed.code, 200, "{}", changed.text);
    assert_eq!(changed.json["spec"]["clusterIP"], created.json["spec"]["clusterIP"]);
    assert_eq!(changed.json["spec"]["ports"][0]["nodePort"], created.json["spec"]["ports"][0]["nodePort"]);
    assert!(changed.json["spec"]["ports"][1]["nodePort"].is_i64());
}

#[tokio::test]
async fn events_are_applied_in_either_spelling() {
    let api = Api::start().await;
    let path = "/apis/events.k8s.io/v1/namespaces/default/events/e";
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i", "action": "a", "reason": "r",
        "type": "Normal", "note": "n", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let created = api.apply(path, "me", &event).await;
    assert_eq!((created.code, &created.json["note"]), (201, &json!("n")), "{}", created.text);
    assert_eq!(api.apply(path, "me", &event).await.json, created.json);
    assert_eq!(api.get("/api/v1/namespaces/default/events/e").await.json["message"], "n");
}
