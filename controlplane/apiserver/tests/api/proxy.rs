//! Requests through the API server to pods and services: whom they reach, what goes with them, who may.

use serde_json::json;

use crate::support::*;

async fn with_pod_and_service() -> Api {
    let api = Api::start().await;
    let mut front = pod("front");
    front["spec"]["nodeName"] = "n1".into();
    front["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    api.create(PODS, front).await;
    api.create(SERVICES, service("web", "ClusterIP")).await;
    api.create(SERVICES, service("lonely", "ClusterIP")).await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.64.0.2"], "nodeName": "n2", "conditions": {"ready": true},
                       "targetRef": {"kind": "Pod", "namespace": "default", "name": "back"}}]});
    api.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    api
}

#[tokio::test]
async fn a_request_goes_to_the_pod_as_it_came() {
    let api = with_pod_and_service().await;
    let headers = [
        ("host", "api.example"),
        ("authorization", "Bearer secret"),
        ("x-own", "kept"),
        ("connection", "x-hop"),
        ("x-hop", "gone"),
    ];
    let path = format!("{PODS}/front:81/proxy/a//b%20c/?x=1&y");
    let answer = api.send(admin(), "PATCH", &path, &headers, "body").await;
    assert_eq!((answer.code, answer.text.as_str()), (200, "/proxy/default/front/81/a//b%20c/?x=1&y"));
    let asked = answer.headers["asked"].to_str().expect("text");
    assert!(asked.starts_with("PATCH n1 "), "{asked}");
    for there in ["x-own=kept", "x-forwarded-host=api.example", "x-forwarded-proto=https", "/front:81/proxy/a//b%20c/"]
    {
        assert!(asked.contains(there), "{there} is not in {asked}");
    }
    for gone in ["secret", "x-hop", "connection"] {
        assert!(!asked.contains(gone), "{gone} is in {asked}");
    }
    assert!(!answer.headers.contains_key("connection"));
    for (name, port) in [("front", 8080), ("front:web", 8080), ("http:front:7", 7)] {
        let answer = api.get(&format!("{PODS}/{name}/proxy/")).await;
        assert_eq!(answer.text, format!("/proxy/default/front/{port}/"), "{name}");
    }
    let moved = api.get(&format!("{PODS}/front/proxy?x=1")).await;
    assert_eq!(moved.code, 301);
    assert_eq!(moved.headers["location"], format!("{PODS}/front/proxy/?x=1"));
    assert_eq!(api.get(&format!("{PODS}/https:front:443/proxy/")).await.code, 400);
    assert_eq!(api.get(&format!("{PODS}/nobody/proxy/")).await.code, 404);
}

#[tokio::test]
async fn a_service_is_asked_through_one_of_its_pods() {
    let api = with_pod_and_service().await;
    for name in ["web", "web:80"] {
        let answer = api.get(&format!("{SERVICES}/{name}/proxy/x?y=1")).await;
        assert_eq!(answer.text, "/proxy/default/back/8080/x?y=1", "{name}");
        assert!(answer.headers["asked"].to_str().expect("text").starts_with("GET n2 "));
    }
    for (name, why) in [
        ("lonely:80", "no endpoints available for service \"lonely:80\""),
        ("web:81", "no service port 81 found for service \"web\""),
    ] {
        let answer = api.get(&format!("{SERVICES}/{name}/proxy/")).await;
        assert_eq!((answer.code, answer.json["message"].as_str()), (503, Some(why)));
    }
}

/// The verb is the method's, on the subresource.
#[tokio::test]
async fn to_read_through_a_proxy_is_not_to_write_through_it() {
    let api = with_pod_and_service().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "viewer"},
                      "rules": [{"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"]}]});
    api.create(&format!("{rbac}/roles"), role).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "viewer"},
                         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "viewer"},
                         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    api.create(&format!("{rbac}/rolebindings"), binding).await;
    let path = format!("{SERVICES}/web:80/proxy/");
    assert_eq!(api.send(user("jane"), "GET", &path, &[], "").await.code, 200);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(api.send(user("jane"), method, &path, &[], "").await.code, 403, "{method}");
    }
    assert_eq!(api.send(user("jane"), "GET", &format!("{PODS}/front/proxy/"), &[], "").await.code, 403);
}
