//! What people do with kubectl all day.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, ensure};
use shoal_tests::{Cluster, Tool, eventually};

use crate::examples::{PATIENCE, example};

pub fn version_and_discovery_are_understood(cluster: &mut Cluster) -> anyhow::Result<()> {
    let version = cluster.kubectl.ok(&["version"])?;
    ensure!(version.contains("Server Version: v1.35"), "{version}");
    let resources = cluster.kubectl.ok(&["api-resources"])?;
    for kind in [
        "Namespace",
        "Node",
        "Pod",
        "Service",
        "Endpoints",
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "Event",
        "Lease",
        "Deployment",
        "ReplicaSet",
        "EndpointSlice",
        "ClusterRole",
    ] {
        ensure!(resources.lines().any(|line| line.ends_with(&format!(" {kind}"))), "{kind} is missing:\n{resources}");
    }
    let versions = cluster.kubectl.ok(&["api-versions"])?;
    ensure!(versions.lines().any(|line| line == "apps/v1"), "{versions}");
    Ok(())
}

pub fn explain_names_fields_and_types(cluster: &mut Cluster) -> anyhow::Result<()> {
    let text = cluster.kubectl.ok(&["explain", "deployment.spec"])?;
    for expected in ["replicas", "<integer>", "strategy", "<DeploymentStrategy>", "template", "<PodTemplateSpec>"] {
        ensure!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let text = cluster.kubectl.ok(&["explain", "pod.spec.containers.resources"])?;
    ensure!(text.contains("limits"), "{text}");
    Ok(())
}

pub fn nodes_are_ready_and_described(cluster: &mut Cluster) -> anyhow::Result<()> {
    let nodes = cluster.kubectl.ok(&["get", "nodes", "-o", "wide"])?;
    ensure!(nodes.lines().filter(|line| line.contains(" Ready ")).count() == 2, "{nodes}");
    ensure!(nodes.contains("127.0.1.1") && nodes.contains("127.0.1.2"), "{nodes}");
    let text = cluster.kubectl.ok(&["describe", "node", "worker-1"])?;
    for expected in ["Capacity:", "Allocatable:", "kubernetes.io/arch=wasm32", "Non-terminated Pods:", "Lease:"] {
        ensure!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    Ok(())
}

pub fn protobuf_bodies_create_objects(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    ensure!(kubectl.ok(&["create", "namespace", "depths"])? == "namespace/depths created\n", "namespace");
    eventually("the namespace has its service account and the CA", PATIENCE, || {
        kubectl.ok(&["get", "serviceaccount", "default", "-n", "depths"])?;
        kubectl.ok(&["get", "configmap", "kube-root-ca.crt", "-n", "depths"])
    })?;
    kubectl.ok(&["create", "configmap", "tides", "--from-literal=high=noon", "-n", "depths"])?;
    ensure!(
        kubectl.ok(&["get", "configmap", "tides", "-n", "depths", "-o", "jsonpath={.data.high}"])? == "noon",
        "configmap"
    );
    kubectl.ok(&["create", "secret", "generic", "pearl", "--from-literal=colour=white", "-n", "depths"])?;
    ensure!(
        kubectl.ok(&["get", "secret", "pearl", "-n", "depths", "-o", "jsonpath={.data.colour}"])? == "d2hpdGU=",
        "secret"
    );
    kubectl.ok(&["create", "deployment", "still", "--image=hello:1", "--replicas=0", "-n", "depths"])?;
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-file}\ndata: {a: b}\n";
    let printed = kubectl.ok_with(&["create", "-n", "depths", "-f", "-"], manifest)?;
    ensure!(printed == "configmap/from-file created\n", "{printed}");
    let again = kubectl.fails_with(&["create", "-n", "depths", "-f", "-"], manifest)?;
    ensure!(again.contains("configmaps \"from-file\" already exists"), "{again}");
    Ok(())
}

pub fn a_second_apply_says_unchanged(cluster: &mut Cluster) -> anyhow::Result<()> {
    // The NodePort is the bundled example's own, so only the Deployment goes into this namespace.
    let text = std::fs::read_to_string(example("hello", "manifest.yaml"))?;
    let deployment = text.split("---").next().context("no document")?;
    let first = cluster.kubectl.ok_with(&["apply", "-n", "depths", "-f", "-"], deployment)?;
    ensure!(first == "deployment.apps/hello created\n", "{first}");
    let second = cluster.kubectl.ok_with(&["apply", "-n", "depths", "-f", "-"], deployment)?;
    ensure!(second == "deployment.apps/hello unchanged\n", "{second}");
    let changed = deployment.replace("value: Hello", "value: Ahoy");
    let third = cluster.kubectl.ok_with(&["apply", "-n", "depths", "-f", "-"], &changed)?;
    ensure!(third == "deployment.apps/hello configured\n", "{third}");
    let path = "jsonpath={.spec.template.spec.containers[0].env[0].value}";
    ensure!(cluster.kubectl.ok(&["get", "deployment", "hello", "-n", "depths", "-o", path])? == "Ahoy", "the variable");
    Ok(())
}

pub fn top_shows_what_nodes_and_pods_use(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    eventually("the nodes' use is known", PATIENCE, || {
        let nodes = kubectl.ok(&["top", "nodes", "--no-headers"])?;
        let has_use = |name: &str| nodes.lines().any(|row| row.starts_with(name) && row.contains("Mi"));
        ensure!(has_use("worker-1") && has_use("worker-2"), "{nodes}");
        Ok(())
    })?;
    eventually("the pods' use is known", PATIENCE, || {
        let pods = kubectl.ok(&["top", "pods", "-l", "app=ticker", "--containers", "--no-headers"])?;
        ensure!(pods.lines().count() == 1 && pods.contains("ticker") && pods.contains("Mi"), "{pods}");
        Ok(())
    })?;
    let metrics = kubectl.ok(&["get", "--raw", "/api/v1/nodes/worker-1/proxy/metrics/resource"])?;
    ensure!(metrics.contains("\nnode_cpu_usage_seconds_total "), "{metrics}");
    let missing = kubectl.run(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/worker-9"])?;
    ensure!(missing.code != 0 && missing.stderr.contains("not found"), "{}", missing.stderr);
    Ok(())
}

pub fn get_prints_every_form(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let wide = kubectl.ok(&["get", "pods", "-l", "app=hello", "-o", "wide"])?;
    for column in ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"] {
        ensure!(wide.lines().next().is_some_and(|header| header.contains(column)), "{wide}");
    }
    ensure!(wide.lines().filter(|line| line.contains("1/1") && line.contains("Running")).count() == 3, "{wide}");
    let yaml = kubectl.ok(&["get", "deployment", "hello", "-o", "yaml"])?;
    ensure!(yaml.contains("apiVersion: apps/v1") && yaml.contains("readyReplicas: 3"), "{yaml}");
    let ready = kubectl.ok(&["get", "deployment", "hello", "-o", "jsonpath={.status.readyReplicas}"])?;
    ensure!(ready == "3", "{ready}");
    let selected =
        kubectl.ok(&["get", "pods", "--field-selector=status.phase=Running", "-l", "app=hello", "-o", "name"])?;
    ensure!(selected.lines().count() == 3, "{selected}");
    let all = kubectl.ok(&["get", "all"])?;
    for row in ["pod/hello-", "service/hello", "deployment.apps/hello", "replicaset.apps/hello-"] {
        ensure!(all.contains(row), "{row} is missing:\n{all}");
    }
    let everywhere = kubectl.ok(&["get", "services", "-A"])?;
    ensure!(everywhere.contains("10.96.0.1"), "{everywhere}");
    let chunked = kubectl.ok(&["get", "pods", "--chunk-size=2", "-o", "name"])?;
    ensure!(chunked.lines().filter(|line| line.contains("hello-")).count() == 3, "{chunked}");
    Ok(())
}

pub fn watching_shows_a_new_pod(cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut child = cluster
        .kubectl
        .command(&["get", "pods", "-w", "-l", "app=watched"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let lines = read_along(child.stdout.take().context("no output")?);
    let outcome = (|| {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: watched, labels: {app: watched}}\nspec: {restartPolicy: Never, containers: [{name: batch, image: 'batch:1', args: ['10']}]}\n";
        // The watch begins some time after kubectl does; what it lists first counts as well.
        cluster.kubectl.ok_with(&["create", "-f", "-"], pod)?;
        let mut seen = String::new();
        eventually("the watch shows the pod's end", PATIENCE, || {
            seen.extend(lines.try_iter().map(|line| line + "\n"));
            ensure!(seen.contains("Completed"), "only: {seen}");
            Ok(())
        })
    })();
    child.kill()?;
    child.wait()?;
    cluster.kubectl.ok(&["delete", "pod", "watched"])?;
    outcome
}

pub fn describe_tells_the_story_of_a_pod_and_its_deployment(cluster: &mut Cluster) -> anyhow::Result<()> {
    let text = cluster.kubectl.ok(&["describe", "pods", "-l", "app=hello"])?;
    for expected in [
        "Status:           Running",
        "Image ID:",
        "Readiness:",
        "GREETING",
        "Scheduled",
        "Pulled",
        "Started",
        "Successfully assigned default/hello-",
    ] {
        ensure!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let text = cluster.kubectl.ok(&["describe", "deployment", "hello"])?;
    for expected in [
        "3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
        "RollingUpdate",
        "ScalingReplicaSet",
        "NewReplicaSet",
    ] {
        ensure!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    Ok(())
}

pub fn label_scale_and_set_image_change_what_they_say(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    kubectl.ok(&["label", "deployment", "hello", "tier=edge"])?;
    ensure!(
        kubectl.ok(&["get", "deployments", "-l", "tier=edge", "-o", "name"])? == "deployment.apps/hello\n",
        "the label"
    );
    kubectl.ok(&["annotate", "deployment", "hello", "note=here"])?;
    kubectl.ok(&["scale", "deployment", "hello", "--replicas=5"])?;
    kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    ensure!(running(kubectl, "app=hello")? == 5, "five pods");
    kubectl.ok(&["scale", "deployment", "hello", "--replicas=3"])?;
    eventually("three pods are left", PATIENCE, || {
        ensure!(running(kubectl, "app=hello")? == 3, "not three");
        Ok(())
    })?;
    cluster.shoal(&["push", &example("hello", "hello.wasm").to_string_lossy(), "hello:2"])?;
    kubectl.ok(&["set", "image", "deployment/hello", "hello=hello:2"])?;
    kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    let images = kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app=hello",
        "--field-selector=status.phase=Running",
        "-o",
        "jsonpath={.items[*].spec.containers[0].image}",
    ])?;
    ensure!(images.contains("hello:2"), "{images}");
    Ok(())
}

pub fn rollout_undo_brings_the_old_template_back(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let history = kubectl.ok(&["rollout", "history", "deployment/hello"])?;
    ensure!(history.lines().any(|line| line.starts_with('2')), "{history}");
    kubectl.ok(&["rollout", "undo", "deployment/hello"])?;
    kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    let image =
        kubectl.ok(&["get", "deployment", "hello", "-o", "jsonpath={.spec.template.spec.containers[0].image}"])?;
    ensure!(image == "hello:1", "{image}");
    kubectl.ok(&["rollout", "restart", "deployment/hello"])?;
    kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    Ok(())
}

pub fn logs_follow_a_running_process(cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut child =
        cluster.kubectl.command(&["logs", "-f", "--tail=1", "deployment/ticker"]).stdout(Stdio::piped()).spawn()?;
    let lines = read_along(child.stdout.take().context("no output")?);
    let outcome = (0..4).try_for_each(|_| {
        let line = lines.recv_timeout(Duration::from_secs(20)).context("the log stopped")?;
        ensure!(line.contains("the tide is"), "{line}");
        Ok(())
    });
    child.kill()?;
    child.wait()?;
    outcome?;
    let stamped = cluster.kubectl.ok(&["logs", "deployment/ticker", "--tail=2", "--timestamps"])?;
    ensure!(stamped.lines().count() == 2 && stamped.lines().all(|line| line.starts_with("20")), "{stamped}");
    Ok(())
}

pub fn delete_waits_until_all_is_gone(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let mut child = kubectl.command(&["logs", "-f", "--tail=1", "deployment/ticker"]).stdout(Stdio::piped()).spawn()?;
    let lines = read_along(child.stdout.take().context("no output")?);
    lines.recv_timeout(Duration::from_secs(20)).context("the log says nothing")?;
    let printed = kubectl.ok(&["delete", "deployment", "ticker", "--cascade=foreground", "--timeout=60s"])?;
    ensure!(printed.contains("deleted"), "{printed}");
    let left = kubectl.ok(&["get", "pods,replicasets", "-l", "app=ticker", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    // The process was asked to stop, and had its last word.
    let last = std::iter::from_fn(|| lines.recv_timeout(Duration::from_secs(20)).ok()).last().unwrap_or_default();
    child.wait()?;
    ensure!(last.starts_with("ticker stops after "), "{last:?}");
    kubectl.ok(&["delete", "pod", "batch"])?;
    let gone = kubectl.fails_with(&["get", "pod", "batch"], "")?;
    ensure!(gone.contains("pods \"batch\" not found"), "{gone}");
    Ok(())
}

pub fn a_namespace_goes_with_all_that_it_holds(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl.ok(&["delete", "namespace", "depths", "--timeout=90s"])?;
    let gone = cluster.kubectl.fails_with(&["get", "namespace", "depths"], "")?;
    ensure!(gone.contains("not found"), "{gone}");
    let left = cluster.kubectl.ok(&[
        "get",
        "pods,deployments,configmaps",
        "-A",
        "-o",
        "jsonpath={.items[*].metadata.namespace}",
    ])?;
    ensure!(!left.contains("depths"), "{left}");
    Ok(())
}

/// How many pods of a label selector are there and not on their way out.
pub fn running(kubectl: &Tool, selector: &str) -> anyhow::Result<usize> {
    let rows = kubectl.ok(&["get", "pods", "-l", selector, "--no-headers"])?;
    Ok(rows.lines().filter(|row| row.contains("Running")).count())
}

/// The lines of a program's output as they come; the channel ends with the output.
pub fn read_along(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
