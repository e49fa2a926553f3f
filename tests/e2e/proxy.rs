//! Requests through the API server: to pods, to services, to nodes.

use anyhow::ensure;
use serde_json::Value;
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, example};

const RELAY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: relay, labels: {app: relay}}
spec:
  containers:
  - name: main
    image: hello:1
    ports: [{name: http, containerPort: 8080}]
    env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
---
apiVersion: v1
kind: Service
metadata: {name: relay}
spec: {selector: {app: relay}, ports: [{port: 80, targetPort: http}]}
"#;

pub fn pods_and_services_answer_through_the_api(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("hello", "hello.wasm").to_string_lossy(), "hello:1"])?;
    let kubectl = &cluster.kubectl;
    kubectl.ok_with(&["apply", "-f", "-"], RELAY)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/relay", "--timeout=60s"])?;
    let at = |place: &str| format!("/api/v1/namespaces/default/{place}/proxy/");
    for place in ["services/relay:80", "services/relay", "pods/relay", "pods/relay:8080", "pods/http:relay:http"] {
        eventually("it answers", PATIENCE, || {
            let said = kubectl.ok(&["get", "--raw", &at(place)])?;
            ensure!(said.starts_with("Hello from relay"), "{place} said {said:?}");
            Ok(())
        })?;
    }
    let posted = kubectl.ok_with(&["create", "--raw", &at("services/relay:80"), "-f", "-"], "tide")?;
    ensure!(posted.starts_with("Hello from relay"), "{posted:?}");
    let closed = kubectl.run(&["get", "--raw", &at("pods/relay:9")])?;
    ensure!(closed.code != 0 && closed.stderr.contains("error trying to reach service"), "{closed:?}");
    let unknown = kubectl.run(&["get", "--raw", &at("services/relay:81")])?;
    ensure!(unknown.stderr.contains("no service port 81 found"), "{unknown:?}");
    let denied = kubectl.run(&["get", "--raw", &at("services/relay:80"), "--as=stowaway"])?;
    ensure!(denied.code != 0 && denied.stderr.contains("services/proxy"), "{denied:?}");

    let node = kubectl.ok(&["get", "pod", "relay", "-o", "jsonpath={.spec.nodeName}"])?;
    let pods: Value =
        serde_json::from_str(&kubectl.ok(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/pods")])?)?;
    let names = pods["items"].as_array().into_iter().flatten().map(|pod| &pod["metadata"]["name"]);
    ensure!(names.into_iter().any(|name| name == "relay"), "{pods}");
    let log = format!("/api/v1/nodes/{node}/proxy/containerLogs/default/relay/main?tailLines=0");
    ensure!(kubectl.ok(&["get", "--raw", &log])?.is_empty(), "no line was asked for");
    kubectl.ok(&["delete", "pod/relay", "service/relay", "--timeout=60s"])?;
    Ok(())
}
