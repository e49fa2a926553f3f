//! Server-side apply: who owns which field.

use anyhow::ensure;
use shoal_tests::{Cluster, Tool};

fn manifest(replicas: u32, greeting: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: owned, labels: {{app: owned}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: owned}}}}
  template:
    metadata: {{labels: {{app: owned}}}}
    spec:
      containers:
        - name: hello
          image: hello:1
          env: [{{name: GREETING, value: {greeting}}}]
"#
    )
}

fn field(kubectl: &Tool, path: &str) -> anyhow::Result<String> {
    kubectl.ok(&["get", "deployment", "owned", "-o", &format!("jsonpath={{{path}}}")])
}

pub fn fields_have_owners_and_conflicts_are_named(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let apply = ["apply", "--server-side", "-f", "-"];
    let printed = kubectl.ok_with(&apply, &manifest(0, "one"))?;
    ensure!(printed == "deployment.apps/owned serverside-applied\n", "{printed}");
    // The controller writes the status meanwhile, which is no business of the generation.
    let generation = field(kubectl, ".metadata.generation")?;
    kubectl.ok_with(&apply, &manifest(0, "one"))?;
    ensure!(field(kubectl, ".metadata.generation")? == generation, "the same configuration changed something");

    let managers = kubectl.ok(&["get", "deployment", "owned", "-o", "yaml", "--show-managed-fields"])?;
    ensure!(managers.contains("manager: kubectl\n") && managers.contains("operation: Apply"), "{managers}");
    let plain = kubectl.ok(&["get", "deployment", "owned", "-o", "yaml"])?;
    ensure!(!plain.contains("managedFields"), "{plain}");

    kubectl
        .ok_with(&["apply", "--server-side", "--field-manager=autoscaler", "--force-conflicts", "-f", "-"], SCALE)?;
    let refused = kubectl.fails_with(&apply, &manifest(0, "one"))?;
    ensure!(refused.contains("conflict with \"autoscaler\"") && refused.contains(".spec.replicas"), "{refused}");
    ensure!(field(kubectl, ".spec.replicas")? == "1", "a refused configuration was applied");
    kubectl.ok_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &manifest(0, "two"))?;
    ensure!(field(kubectl, ".spec.replicas")? == "0", "force did not win");

    // What is no longer in the configuration goes, if nobody else has it.
    let without = manifest(0, "two").replace("          env: [{name: GREETING, value: two}]\n", "");
    kubectl.ok_with(&apply, &without)?;
    let left = field(kubectl, ".spec.template.spec.containers[0].env")?;
    ensure!(left.is_empty(), "{left}");
    kubectl.ok(&["delete", "deployment", "owned", "--timeout=60s"]).map(drop)
}

const SCALE: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: owned}, spec: {replicas: 1}}";

pub fn a_client_s_apply_becomes_the_server_s(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.ok_with(&["apply", "-f", "-"], &manifest(0, "one"))?;
    kubectl.ok_with(&["apply", "--server-side", "-f", "-"], &manifest(0, "two"))?;
    let value = field(kubectl, ".spec.template.spec.containers[0].env[0].value")?;
    ensure!(value == "two", "{value}");
    let diff = kubectl.run_with(&["diff", "--server-side", "-f", "-"], &manifest(0, "two"))?;
    ensure!(diff.code == 0, "{diff:?}");
    let diff = kubectl.run_with(&["diff", "--server-side", "-f", "-"], &manifest(3, "two"))?;
    ensure!(diff.code == 1 && diff.stdout.contains("+  replicas: 3"), "{diff:?}");
    kubectl.ok(&["delete", "deployment", "owned", "--timeout=60s"]).map(drop)
}
