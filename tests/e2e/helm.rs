//! Helm's whole round, by server-side apply, as it does unasked, and by the client's own patches.

use anyhow::{Context, ensure};
use shoal_tests::{Cluster, get};

pub fn a_chart_installs_upgrades_rolls_back_and_goes(cluster: &mut Cluster) -> anyhow::Result<()> {
    for way in ["--server-side=auto", "--server-side=false"] {
        round(cluster, way).with_context(|| way.to_owned())?;
    }
    Ok(())
}

fn round(cluster: &Cluster, way: &str) -> anyhow::Result<()> {
    let chart = cluster.data().join("reef");
    std::fs::create_dir_all(chart.join("templates"))?;
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: reef\nversion: 0.1.0\n")?;
    std::fs::write(chart.join("values.yaml"), "greeting: Welcome\nreplicas: 1\n")?;
    std::fs::write(chart.join("templates/all.yaml"), TEMPLATES)?;
    let chart = chart.to_string_lossy();
    let helm = &cluster.helm;
    // `auto` means "as before", which an install has nothing of.
    let install = if way.ends_with("auto") { "--server-side=true" } else { way };
    let greeting = || anyhow::Ok(get("127.0.1.1:30083", "/")?.body);

    let printed = helm.ok(&["install", "reef", &chart, install, "--wait", "--timeout", "60s"])?;
    ensure!(printed.contains("STATUS: deployed"), "{printed}");
    ensure!(greeting()?.starts_with("Welcome from reef-"), "{:?}", greeting());

    helm.ok(&["upgrade", "reef", &chart, way, "--set", "greeting=Ahoy", "--wait", "--timeout", "60s"])?;
    shoal_tests::eventually("the upgrade answers", crate::examples::PATIENCE, || {
        ensure!(greeting()?.starts_with("Ahoy from reef-"), "{:?}", greeting());
        Ok(())
    })?;
    let listed = helm.ok(&["list"])?;
    ensure!(listed.contains("reef") && listed.contains("deployed"), "{listed}");

    helm.ok(&["rollback", "reef", "1", way, "--wait", "--timeout", "60s"])?;
    shoal_tests::eventually("the first greeting is back", crate::examples::PATIENCE, || {
        ensure!(greeting()?.starts_with("Welcome from reef-"), "{:?}", greeting());
        Ok(())
    })?;
    helm.ok(&["uninstall", "reef", "--wait", "--timeout", "60s"])?;
    let left = cluster.kubectl.ok(&["get", "deployments,services,secrets", "-l", "app=reef", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

const TEMPLATES: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: reef, labels: {app: reef}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: reef}}
  template:
    metadata: {labels: {app: reef}}
    spec:
      containers:
        - name: hello
          image: hello:1
          ports: [{name: http, containerPort: 8080}]
          env:
            - {name: GREETING, value: {{ .Values.greeting | quote }}}
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
---
apiVersion: v1
kind: Service
metadata: {name: reef, labels: {app: reef}}
spec: {type: NodePort, selector: {app: reef}, ports: [{port: 80, targetPort: http, nodePort: 30083}]}
"#;
