//! Who may do what: anonymous users, roles, nodes, tokens, impersonation.

use serde_json::{Value, json};
use shoal_apiserver::Peer;

use crate::support::*;

#[tokio::test]
async fn nobody_gets_health_and_version_only() {
    let api = Api::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(api.send(Peer::Anonymous, "GET", path, &[], "").await.code, 200, "{path}");
    }
    for path in ["/api", "/api/v1/pods", "/openapi/v3", "/"] {
        assert_eq!(api.send(Peer::Anonymous, "GET", path, &[], "").await.code, 401, "{path}");
    }
    let bearer = [("authorization", "Bearer nonsense")];
    assert_eq!(api.send(Peer::Token, "GET", "/healthz", &bearer, "").await.code, 401);
}

#[tokio::test]
async fn a_user_may_do_what_a_role_grants_and_no_more() {
    let api = Api::start().await;
    let refused = api.send(user("jane"), "GET", PODS, &[], "").await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.json["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(api.send(user("jane"), "GET", "/apis", &[], "").await.code, 200);
    api.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "jane"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
               "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]}),
    )
    .await;
    assert_eq!(api.send(user("jane"), "GET", PODS, &[], "").await.code, 200);
    assert_eq!(api.send(user("jane"), "GET", "/api/v1/namespaces/kube-system/pods", &[], "").await.code, 403);
    assert_eq!(api.send(user("jane"), "DELETE", &format!("{PODS}/x"), &[], "").await.code, 403);
}

#[tokio::test]
async fn a_node_keeps_to_itself() {
    let api = Api::start().await;
    let json = [("content-type", "application/json")];
    let own = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    assert_eq!(api.send(node("n1"), "POST", "/api/v1/nodes", &json, own.to_string()).await.code, 201);
    let other = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}});
    assert_eq!(api.send(node("n1"), "POST", "/api/v1/nodes", &json, other.to_string()).await.code, 403);
    assert_eq!(api.send(node("n1"), "GET", "/api/v1/pods", &[], "").await.code, 403);
    assert_eq!(api.send(node("n1"), "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", &[], "").await.code, 200);

    api.create(
        "/api/v1/namespaces/default/secrets",
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
    )
    .await;
    let secret = "/api/v1/namespaces/default/secrets/s";
    assert_eq!(api.send(node("n1"), "GET", secret, &[], "").await.code, 403);
    let mut reader = pod("p");
    reader["spec"]["nodeName"] = "n1".into();
    reader["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    api.create(PODS, reader).await;
    assert_eq!(api.send(node("n1"), "GET", secret, &[], "").await.code, 200);
    assert_eq!(api.send(node("n2"), "GET", secret, &[], "").await.code, 403);

    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
               "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let volume = |name: &str, claim: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"},
            "claimRef": {"namespace": "default", "name": claim}}})
    };
    for name in ["mine", "theirs"] {
        api.create(claims, claim(name)).await;
        api.create("/api/v1/persistentvolumes", volume(name, name)).await;
    }
    let mut claiming = pod("claiming");
    claiming["spec"]["nodeName"] = "n1".into();
    claiming["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "mine"}}]);
    api.create(PODS, claiming).await;
    for path in [claims, "/api/v1/persistentvolumes"] {
        assert_eq!(api.send(node("n1"), "GET", &format!("{path}/mine"), &[], "").await.code, 200, "{path}");
        assert_eq!(api.send(node("n1"), "GET", &format!("{path}/theirs"), &[], "").await.code, 403, "{path}");
        assert_eq!(api.send(node("n2"), "GET", &format!("{path}/mine"), &[], "").await.code, 403, "{path}");
        assert_eq!(api.send(node("n1"), "GET", path, &[], "").await.code, 403, "{path}");
        assert_eq!(api.send(node("n1"), "DELETE", &format!("{path}/mine"), &[], "").await.code, 403, "{path}");
    }

    let status = json!({"status": {"phase": "Running"}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    assert_eq!(api.send(node("n2"), "PATCH", &format!("{PODS}/p/status"), &merge, status.clone()).await.code, 403);
    assert_eq!(api.send(node("n1"), "PATCH", &format!("{PODS}/p/status"), &merge, status).await.code, 200);

    let lease = |name: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}})
            .to_string()
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(api.send(node("n1"), "POST", leases, &json, lease("n1")).await.code, 201);
    assert_eq!(api.send(node("n1"), "POST", leases, &json, lease("n2")).await.code, 403);
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_account() {
    let api = Api::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.create(accounts, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}})).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let issued = api.create(&format!("{accounts}/web/token"), request).await;
    let token = issued["status"]["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let myself = api.send(Peer::Token, "POST", reviews, &headers, review.clone()).await;
    assert_eq!(myself.code, 201, "{}", myself.text);
    assert_eq!(myself.json["status"]["userInfo"]["username"], "system:serviceaccount:default:web");

    let token_review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = api.create("/apis/authentication.k8s.io/v1/tokenreviews", token_review).await;
    assert_eq!(reviewed["status"]["authenticated"], true);

    api.delete(&format!("{accounts}/web")).await;
    assert_eq!(api.send(Peer::Token, "POST", reviews, &headers, review).await.code, 401);
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_and_their_audiences_only() {
    let api = Api::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.create(accounts, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}})).await;
    let placed = |name: &str, node: &str| {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = node.into();
        pod["spec"]["serviceAccountName"] = "web".into();
        pod["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"path": "vault", "audience": "vault"}}]}}]);
        pod
    };
    api.create("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).await;
    let mine = api.create(PODS, placed("mine", "n1")).await;
    let theirs = api.create(PODS, placed("theirs", "n2")).await;
    let ask = async |bound: &Value, audiences: Value| {
        let mut request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 600}});
        if bound.is_object() {
            request["spec"]["boundObjectRef"] = json!({"apiVersion": "v1", "kind": "Pod",
                "name": bound["metadata"]["name"], "uid": bound["metadata"]["uid"]});
        }
        let headers = [("content-type", "application/json")];
        api.send(node("n1"), "POST", &format!("{accounts}/web/token"), &headers, request.to_string()).await
    };
    for (bound, audiences, why) in [
        (&Value::Null, json!([]), "not bound to a pod"),
        (&theirs, json!([]), "scheduled on a different node"),
        (&mine, json!(["bank"]), "audience \"bank\" not found in pod spec volume"),
    ] {
        let refused = ask(bound, audiences).await;
        assert_eq!(refused.code, 403, "{}", refused.text);
        assert!(refused.text.contains(&why.replace('"', "\\\"")), "{}", refused.text);
    }
    assert_eq!(ask(&mine, json!([])).await.code, 201);
    let issued = ask(&mine, json!(["vault"])).await;
    assert_eq!(issued.code, 201, "{}", issued.text);
    let review = async |audiences: Value| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": issued.json["status"]["token"], "audiences": audiences}});
        api.create("/apis/authentication.k8s.io/v1/tokenreviews", review).await["status"].clone()
    };
    let known = review(json!(["vault"])).await;
    assert_eq!(known["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["mine"]), "{known}");
    assert_eq!(known["user"]["extra"]["authentication.kubernetes.io/node-name"], json!(["n1"]), "{known}");
    assert_ne!(review(json!([])).await["authenticated"], true, "it is not for the API");
    api.delete(&format!("{PODS}/mine?gracePeriodSeconds=0")).await;
    assert_ne!(review(json!(["vault"])).await["authenticated"], true, "its pod is gone");
}

#[tokio::test]
async fn a_pod_that_names_no_pull_secret_has_those_of_its_account() {
    let api = Api::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = |name: &str, secrets: Value| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}, "imagePullSecrets": secrets});
    api.create(accounts, account("web", json!([{"name": "a"}, {"name": "b"}]))).await;
    api.create(accounts, account("plain", json!([]))).await;
    for (name, account, own, expected) in [
        ("one", "web", json!([]), json!([{"name": "a"}, {"name": "b"}])),
        ("two", "web", json!([{"name": "c"}]), json!([{"name": "c"}])),
        ("three", "plain", json!([{"name": "c"}]), json!([{"name": "c"}])),
    ] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "serviceAccountName": account, "imagePullSecrets": own, "containers": [{"name": "c", "image": "hello:1"}]}});
        let made = api.create("/api/v1/namespaces/default/pods", pod).await;
        assert_eq!(made["spec"]["imagePullSecrets"], expected, "{name}");
    }
}

#[tokio::test]
async fn a_user_may_act_as_another_if_allowed_to() {
    let api = Api::start().await;
    let acting = [("impersonate-user", "jane"), ("content-type", "application/json")];
    assert_eq!(api.send(admin(), "GET", PODS, &acting, "").await.code, 403);
    assert_eq!(api.send(user("john"), "GET", "/apis", &acting, "").await.code, 403);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let myself = api.send(admin(), "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &acting, review).await;
    assert_eq!(myself.json["status"]["userInfo"]["username"], "jane", "{}", myself.text);
}

#[tokio::test]
async fn access_can_be_asked_for() {
    let api = Api::start().await;
    let ask = |verb: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
               "spec": {"user": "jane", "groups": ["system:authenticated"], "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(api.create(path, ask("get")).await["status"]["allowed"], false);
    let own = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                     "spec": {"resourceAttributes": {"verb": "*", "resource": "*", "group": "*"}}});
    assert_eq!(
        api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", own).await["status"]["allowed"],
        true
    );
}
