//! Service account tokens in volumes: for whom they are, what they are bound to, and that they end with their pod.

use anyhow::ensure;
use serde_json::{Value, json};
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, example};

/// A pod with the volume that Kubernetes itself would give it, and a token for another audience beside it.
const PODS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: purser}
---
apiVersion: v1
kind: Pod
metadata: {name: purser}
spec:
  serviceAccountName: purser
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: ticker:1
      volumeMounts: [{name: access, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]
  volumes:
    - name: access
      projected:
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3607}
          - serviceAccountToken: {path: vault/token, audience: vault}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: trusting}
spec:
  containers: [{name: main, image: 'ticker:1'}]
  volumes: [{name: trust, projected: {sources: [{clusterTrustBundle: {name: bundle, path: ca}}]}}]
"#;

pub fn a_pod_gets_tokens_of_its_account_that_end_with_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("ticker", "ticker.wasm").to_string_lossy(), "ticker:1"])?;
    let kubectl = &cluster.kubectl;
    kubectl.ok_with(&["apply", "-f", "-"], PODS)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/purser", "--timeout=60s"])?;
    let file = |name: &str| {
        let path = format!("/var/run/secrets/kubernetes.io/serviceaccount/{name}");
        kubectl.ok(&["exec", "purser", "--", "cat", &path])
    };
    ensure!(
        file("namespace")? == "default" && file("ca.crt")?.contains("BEGIN CERTIFICATE"),
        "what is beside the token"
    );
    let review = |token: &str, audiences: Value| -> anyhow::Result<Value> {
        let spec = json!({"token": token, "audiences": audiences});
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer = kubectl.ok_with(&["create", "--raw", path, "-f", "-"], &review.to_string())?;
        Ok(serde_json::from_str::<Value>(&answer)?["status"].take())
    };
    let (own, vault) = (file("token")?, file("vault/token")?);
    let known = review(&own, json!([]))?;
    ensure!(known["authenticated"] == true, "{known}");
    ensure!(known["user"]["username"] == "system:serviceaccount:default:purser", "{known}");
    ensure!(known["user"]["extra"]["authentication.kubernetes.io/pod-name"] == json!(["purser"]), "{known}");
    ensure!(review(&vault, json!(["vault"]))?["authenticated"] == true, "the token for the vault");
    ensure!(review(&vault, json!([]))?["authenticated"] != true, "the token for the vault is not for the API");
    kubectl.ok(&["delete", "pod/purser", "--timeout=60s"])?;
    ensure!(review(&own, json!([]))?["authenticated"] != true, "a token ends with its pod");
    eventually("a trust bundle is refused by its field", PATIENCE, || {
        let told = kubectl.ok(&["get", "pod", "trusting", "-o", "jsonpath={.status.reason} {.status.message}"])?;
        ensure!(
            told.starts_with("UnsupportedPodSpec spec.volumes[0].projected.sources[0].clusterTrustBundle"),
            "{told}"
        );
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod/trusting", "serviceaccount/purser", "--timeout=60s"])?;
    Ok(())
}
