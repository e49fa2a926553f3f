//! Exec, attach and port-forward as far as HTTP: who may, and what is refused before the protocol changes.

use serde_json::json;

use crate::support::*;

const WEBSOCKET: [(&str, &str); 5] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-protocol", "v5.channel.k8s.io"),
];

async fn refused(api: &Api, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let answer = api.send(admin(), method, &format!("{PODS}/{path}"), headers, "").await;
    (answer.code, answer.json["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused_with_the_reason() {
    let api = Api::start().await;
    api.create(PODS, pod("waiting")).await;
    let (code, message) = refused(&api, "GET", "waiting/exec?command=ls&stdout=true", &[]).await;
    assert!(code == 400 && message.contains("Upgrade request required"), "{code} {message}");
    let (code, message) = refused(&api, "GET", "waiting/exec?stdout=true", &WEBSOCKET).await;
    assert!(code == 400 && message.contains("at least one command"), "{code} {message}");
    let (code, message) = refused(&api, "GET", "waiting/exec?command=ls", &WEBSOCKET).await;
    assert!(code == 400 && message.contains("at least 1 of stdin, stdout, stderr"), "{code} {message}");
    let (code, message) = refused(&api, "GET", "waiting/exec?command=ls&stdout=true", &WEBSOCKET).await;
    assert!(code == 400 && message.contains("does not have a host assigned"), "{code} {message}");
    let (code, message) = refused(&api, "GET", "missing/attach?stdout=true", &WEBSOCKET).await;
    assert!(code == 404 && message.contains("\"missing\" not found"), "{code} {message}");
    let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9.channel.k8s.io")];
    let (code, message) = refused(&api, "POST", "waiting/exec?command=ls&stdout=true", &spdy).await;
    assert!(code == 400 && message.contains("v4.channel.k8s.io"), "{code} {message}");
    let (code, message) = refused(&api, "GET", "waiting/portforward", &WEBSOCKET).await;
    assert!(code == 400 && message.contains("SPDY/3.1+portforward.k8s.io"), "{code} {message}");
}

/// A GET could do all that a POST does: who may only read must not run commands.
#[tokio::test]
async fn to_read_pods_is_not_to_run_commands_in_them() {
    let api = Api::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
                      "rules": [{"apiGroups": [""], "resources": ["pods", "pods/*"], "verbs": ["get"]}]});
    api.create(&format!("{rbac}/roles"), role).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
                         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    api.create(&format!("{rbac}/rolebindings"), binding).await;
    api.create(PODS, pod("waiting")).await;
    assert_eq!(api.send(user("jane"), "GET", &format!("{PODS}/waiting"), &[], "").await.code, 200);
    for path in ["exec?command=ls&stdout=true", "attach?stdout=true", "portforward"] {
        let answer = api.send(user("jane"), "GET", &format!("{PODS}/waiting/{path}"), &WEBSOCKET, "").await;
        assert_eq!(answer.code, 403, "{path}: {}", answer.text);
    }
}
