//! Bad input: the error names the field, or the cause, and nothing is lost.

use anyhow::ensure;
use shoal_tests::{Cluster, eventually};

use crate::examples::PATIENCE;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: LABEL}}
    spec:
      EXTRA: x
      containers: [{name: web, image: 'hello:1'}]
"#;

pub fn bad_manifests_get_the_error_that_kubectl_users_know(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let manifest = |name: &str, replicas: &str, label: &str, extra: &str| {
        DEPLOYMENT.replace("NAME", name).replace("REPLICAS", replicas).replace("LABEL", label).replace("EXTRA", extra)
    };
    for (text, expected) in [
        (
            manifest("web", "1", "web", "restartPolic"),
            "strict decoding error: unknown field \"spec.template.spec.restartPolic\"",
        ),
        (manifest("web", "many", "web", "hostname"), "spec.replicas"),
        (
            manifest("Web", "1", "web", "hostname"),
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters",
        ),
        (manifest("web", "1", "other", "hostname"), "`selector` does not match template `labels`"),
        (
            manifest("web", "-1", "web", "hostname"),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        let error = kubectl.fails_with(&["create", "-f", "-"], &text)?;
        ensure!(error.contains(expected), "expected {expected:?} in:\n{error}");
    }
    let error = kubectl.fails_with(&["get", "pods", "--field-selector=spec.colour=red"], "")?;
    ensure!(error.contains("field label not supported"), "{error}");
    let error = kubectl.fails_with(&["get", "sharks"], "")?;
    ensure!(error.contains("the server doesn't have a resource type \"sharks\""), "{error}");
    let error = kubectl.fails_with(&["create", "configmap", "lost", "-n", "nowhere", "--from-literal=a=b"], "")?;
    ensure!(error.contains("namespaces \"nowhere\" not found"), "{error}");
    Ok(())
}

pub fn bad_images_are_named_in_status_and_events(cluster: &mut Cluster) -> anyhow::Result<()> {
    let junk = cluster.data().join("junk.wasm");
    std::fs::write(&junk, b"this is no module")?;
    let refused = cluster.shoal(&["push", &junk.to_string_lossy(), "junk:1"]).err().map(|error| format!("{error:#}"));
    ensure!(
        refused.as_ref().is_some_and(|text| text.contains("junk.wasm") && text.contains("not a WebAssembly")),
        "{refused:?}"
    );
    // A core module that wants a function nobody has: (module (import "sky" "hook" (func)) (func (export "_start")))
    let hook = cluster.data().join("hook.wasm");
    std::fs::write(&hook, b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0c\x01\x03sky\x04hook\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\x01\x0a\x04\x01\x02\0\x0b")?;
    cluster.shoal(&["push", &hook.to_string_lossy(), "hook:1"])?;

    let kubectl = &cluster.kubectl;
    for (pod, image, reason, cause) in [
        ("missing", "nosuchimage:9", "ErrImagePull", "nosuchimage:9"),
        ("hooked", "hook:1", "", "sky"),
        ("unnamed", "Bad//Name", "InvalidImageName", "Bad//Name"),
    ] {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\nspec: {{terminationGracePeriodSeconds: 1, containers: [{{name: main, image: '{image}'}}]}}\n"
        );
        kubectl.ok_with(&["create", "-f", "-"], &manifest)?;
        eventually("the status and an event name the cause", PATIENCE, || {
            let waiting = kubectl.ok(&[
                "get",
                "pod",
                pod,
                "-o",
                "jsonpath={.status.containerStatuses[0].state.waiting}{.status.containerStatuses[0].state.terminated}",
            ])?;
            ensure!(waiting.contains(cause), "{pod}: {waiting:?}");
            ensure!(
                reason.is_empty() || waiting.contains(reason) || waiting.contains("ImagePullBackOff"),
                "{pod}: {waiting:?}"
            );
            let events =
                kubectl.ok(&["get", "events", &format!("--field-selector=involvedObject.name={pod},type=Warning")])?;
            ensure!(events.contains(cause), "{pod}: {events}");
            Ok(())
        })?;
    }
    kubectl.ok(&["delete", "pod", "missing", "hooked", "unnamed", "--timeout=60s"])?;
    Ok(())
}

pub fn strangers_are_refused(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let error = kubectl.fails_with(&["get", "pods", "--as=nobody"], "")?;
    ensure!(
        error.contains("User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""),
        "{error}"
    );
    let server = kubectl.ok(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let anonymous = ["--kubeconfig=/dev/null", "--server", &server, "--insecure-skip-tls-verify"];
    let error = kubectl.fails_with(&[&anonymous[..], &["get", "pods", "--token=not.a.token"]].concat(), "")?;
    ensure!(error.contains("Unauthorized") || error.contains("must be logged in"), "{error}");
    ensure!(kubectl.ok(&["get", "--raw", "/livez", "--as=nobody"])?.contains("ok"), "health is open to all");
    ensure!(kubectl.ok(&["auth", "can-i", "create", "deployments"])?.trim() == "yes", "the admin may do all");
    let may = kubectl.run(&["auth", "can-i", "create", "deployments", "--as=nobody"])?;
    ensure!(may.stdout.trim() == "no", "{may:?}");

    let error = cluster.shoal(&["token", "create", "--role", "captain"]).err().map(|error| format!("{error:#}"));
    ensure!(error.as_ref().is_some_and(|text| text.contains("captain")), "{error:?}");
    Ok(())
}
