//! What a client finds out about the server.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn discovery_is_plain_or_aggregated() {
    let api = Api::start().await;
    assert_eq!(api.get("/api").await.json["versions"], json!(["v1"]));
    assert_eq!(api.get("/apis/apps/v1").await.json["kind"], "APIResourceList");
    assert_eq!(api.get("/apis/nonsense/v1").await.code, 404);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let aggregated = api.send(admin(), "GET", "/apis", &[("accept", accept)], "").await;
    assert_eq!(aggregated.json["kind"], "APIGroupDiscoveryList");
    assert_eq!(
        aggregated.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let tag = aggregated.headers["etag"].to_str().expect("text");
    let again = api.send(admin(), "GET", "/apis", &[("accept", accept), ("if-none-match", tag)], "").await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
}

#[tokio::test]
async fn openapi_names_its_documents() {
    let api = Api::start().await;
    let index = api.get("/openapi/v3").await.json;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a document").to_owned();
    let document = api.get(&url).await;
    assert_eq!(document.code, 200);
    assert!(document.json["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
}

#[tokio::test]
async fn the_version_is_one_that_kubectl_reads() {
    let api = Api::start().await;
    let version = api.get("/version").await.json;
    assert_eq!(
        (&version["major"], &version["minor"], &version["gitVersion"]),
        (&json!("1"), &json!("35"), &json!("v1.35.0+shoal.0.1.0"))
    );
    assert_eq!(api.get("/readyz?verbose").await.text, "[+]ping ok\n[+]store ok\ncheck passed\n");
    assert_eq!(api.get("/nonsense").await.code, 404);
    assert_eq!(api.send(admin(), "HEAD", "/version", &[], "").await.text, "");
    assert_eq!(api.send(admin(), "POST", "/version", &[], "").await.code, 405);
    let pods = api.send(admin(), "POST", "/api/v1/namespaces/default/pods/x", &[], "").await;
    assert_eq!(pods.code, 405);
}
