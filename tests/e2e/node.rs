//! What a node does by itself: it holds pods to their share of the disk, runs pods of manifests, says what it runs out of.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::Value;
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, example};

/// A worker of these cases' own, which the others do not see.
pub const OWN: &str = "worker-9";
/// Its address.
pub const OWN_ADDRESS: &str = "127.0.1.9";

fn object(cluster: &Cluster, kind: &str, name: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl.ok(&["get", kind, name, "-o", "json"])?)?)
}

pub fn a_pod_that_uses_more_disk_than_it_may_is_evicted(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: hoarder}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}]
  containers: [{name: main, image: 'ticker:1', volumeMounts: [{name: scratch, mountPath: /scratch}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: shouter}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: 'unruly:1', args: [shout], resources: {limits: {ephemeral-storage: 1Mi, cpu: 100m}}}]
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/hoarder", "--timeout=60s"])?;
    let pod = object(cluster, "pod", "hoarder")?;
    let (node, uid) = (pod["spec"]["nodeName"].as_str().unwrap_or_default(), pod["metadata"]["uid"].as_str());
    let volume = cluster.data().join(node).join("volumes").join(uid.context("a uid")?).join("scratch");
    // None of the bundled guests writes files, so the volume is filled from the node's side.
    std::fs::write(volume.join("hoard"), vec![1; 2 << 20]).with_context(|| volume.display().to_string())?;
    let evicted = |name: &str, message: &str| {
        eventually("the pod is evicted", PATIENCE, || {
            let status = &object(cluster, "pod", name)?["status"];
            ensure!(status["phase"] == "Failed" && status["reason"] == "Evicted", "{status}");
            ensure!(status["message"] == message, "{}", status["message"]);
            let events = kubectl.ok(&["get", "events", "--field-selector", &format!("involvedObject.name={name}")])?;
            ensure!(events.lines().any(|line| line.contains("Evicted") && line.contains("Warning")), "{events}");
            Ok(())
        })
    };
    evicted("hoarder", "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ")?;
    evicted("shouter", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")?;
    kubectl.ok(&["delete", "pod", "hoarder", "shouter", "--timeout=60s"])?;
    Ok(())
}

fn manifests(cluster: &Cluster) -> PathBuf {
    cluster.data().join("manifests")
}

/// Starts the worker of these cases with these settings beside its own, and waits until it is ready.
pub fn start_own(cluster: &Cluster, settings: &[&str]) -> anyhow::Result<()> {
    let (token, manifests) = (cluster.data().join("worker.token"), manifests(cluster));
    std::fs::create_dir_all(&manifests)?;
    let server = cluster.processes()?.iter().find(|row| row["name"] == "worker-1").cloned().context("no worker-1")?;
    let arguments: Vec<String> = serde_json::from_value(server["arguments"].clone())?;
    let join = arguments.iter().position(|argument| argument == "--join").and_then(|at| arguments.get(at + 1));
    let join = join.context("worker-1 does not say where it joins")?;
    let (token, manifests) = (token.display().to_string(), manifests.display().to_string());
    let own = ["--join", join, "--token-file", &token, "--address", OWN_ADDRESS, "--pod-manifest-path", &manifests];
    cluster.add_worker(OWN, &[&own, settings].concat())?;
    cluster.kubectl.ok(&["wait", "--for=create", &format!("node/{OWN}"), "--timeout=60s"])?;
    cluster.kubectl.ok(&["wait", "--for=condition=Ready", &format!("node/{OWN}"), "--timeout=60s"])?;
    Ok(())
}

/// Ends it and what the API has of it.
pub fn remove_own(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.remove_member(OWN, Signal::TERM)?;
    cluster.kubectl.ok(&["delete", "node", OWN, "--timeout=60s"])?;
    Ok(())
}

pub fn a_static_pod_is_mirrored_and_outlives_its_mirror(cluster: &mut Cluster) -> anyhow::Result<()> {
    start_own(cluster, &["--eviction-hard", ""])?;
    let file = manifests(cluster).join("web.yaml");
    let manifest = |greeting: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: c, image: 'hello:1', env: [{{name: A, value: {greeting}}}]}}]}}\n"
        )
    };
    std::fs::write(&file, manifest("one"))?;
    let mirror = format!("web-{OWN}");
    let kubectl = &cluster.kubectl;
    let ready = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        eventually(what, PATIENCE, || {
            let pod = object(cluster, "pod", &mirror)?;
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            ensure!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{}", pod["status"]);
            ensure!(is_it(&pod), "{pod}");
            Ok(pod)
        })
    };
    let first = ready("the static pod shows as a mirror", &|pod| {
        let annotations = &pod["metadata"]["annotations"];
        annotations["kubernetes.io/config.source"] == "file"
            && annotations["kubernetes.io/config.mirror"] == annotations["kubernetes.io/config.hash"]
            && pod["metadata"]["ownerReferences"][0]["kind"] == "Node"
    })?;
    let started = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    kubectl.ok(&["delete", "pod", &mirror, "--wait=false"])?;
    ready("the mirror is made again and the same container runs", &|pod| {
        pod["metadata"]["uid"] != first["metadata"]["uid"] && started(pod) == started(&first)
    })?;
    std::fs::write(&file, manifest("two"))?;
    ready("a changed manifest is another pod", &|pod| started(pod) != started(&first))?;
    std::fs::remove_file(&file)?;
    eventually("the mirror goes with the manifest", PATIENCE, || {
        let left = kubectl.ok(&["get", "pods", "-o", "name"])?;
        ensure!(!left.contains(&mirror), "{left}");
        Ok(())
    })?;
    remove_own(cluster)
}

pub fn a_node_that_runs_out_says_so_and_is_avoided(cluster: &mut Cluster) -> anyhow::Result<()> {
    start_own(cluster, &["--eviction-hard", "memory.available<100Ti,nodefs.available<100%"])?;
    eventually("the conditions and their taints", PATIENCE, || {
        let node = object(cluster, "node", OWN)?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        for (name, reason) in
            [("MemoryPressure", "KubeletHasInsufficientMemory"), ("DiskPressure", "KubeletHasDiskPressure")]
        {
            let found = conditions.iter().find(|condition| condition["type"] == name);
            ensure!(found.is_some_and(|c| c["status"] == "True" && c["reason"] == reason), "{conditions:?}");
        }
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        for key in ["node.kubernetes.io/memory-pressure", "node.kubernetes.io/disk-pressure"] {
            ensure!(taints.iter().any(|taint| taint["key"] == key && taint["effect"] == "NoSchedule"), "{taints:?}");
        }
        Ok(())
    })?;
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: nowhere}}\nspec: {{nodeName: {OWN}, containers: [{{name: c, image: 'hello:1'}}]}}\n"
    );
    cluster.kubectl.ok_with(&["apply", "-f", "-"], &pod)?;
    eventually("a pod bound to it is refused", PATIENCE, || {
        let status = &object(cluster, "pod", "nowhere")?["status"];
        ensure!(status["phase"] == "Failed" && status["reason"] == "Evicted", "{status}");
        Ok(())
    })?;
    cluster.kubectl.ok(&["delete", "pod", "nowhere", "--timeout=60s"])?;
    remove_own(cluster)
}

pub fn a_node_that_is_short_for_long_ends_pods_in_their_time(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("unruly", "unruly.wasm").to_string_lossy(), "unruly:1"])?;
    let soft = ["--eviction-hard", "", "--eviction-soft", "memory.available<100Ti"];
    let refused = cluster.shoal(&[&["worker"], &soft[..]].concat()).err().map(|error| format!("{error:#}"));
    let told = "eviction-soft: memory.available needs a grace period";
    ensure!(refused.as_ref().is_some_and(|refused| refused.contains(told)), "{refused:?}");
    let periods = ["--eviction-soft-grace-period", "memory.available=25s", "--eviction-max-pod-grace-period", "20"];
    start_own(cluster, &[&soft[..], &periods].concat())?;
    // It was promised memory: a node that is short of it takes it all the same.
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: patient}}\nspec:\n  nodeName: {OWN}\n  \
         containers: [{{name: c, image: 'unruly:1', args: [sleep], resources: {{requests: {{memory: 1Mi}}}}, \
         lifecycle: {{preStop: {{sleep: {{seconds: 4}}}}}}}}]\n"
    );
    cluster.kubectl.ok_with(&["apply", "-f", "-"], &pod)?;
    cluster.kubectl.ok(&["wait", "--for=condition=Ready", "pod/patient", "--timeout=60s"])?;
    let is_short = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "MemoryPressure" && condition["status"] == "True")
    };
    eventually("the node says so", PATIENCE, || {
        ensure!(is_short(&object(cluster, "node", OWN)?), "not yet");
        Ok(())
    })?;
    eventually("the pod goes when that has lasted", PATIENCE, || {
        let status = &object(cluster, "pod", "patient")?["status"];
        ensure!(status["phase"] == "Failed" && status["reason"] == "Evicted", "{status}");
        let message = status["message"].as_str().unwrap_or_default();
        ensure!(message.starts_with("The node was low on resource: memory. Threshold quantity: 100Ti"), "{message}");
        let end = &status["containerStatuses"][0]["state"]["terminated"];
        ensure!(end["exitCode"] == 143, "it was asked, and not killed: {end}");
        Ok(())
    })?;
    // It had more than the second that a hard threshold leaves: its hook came to an end.
    let events = cluster.kubectl.ok(&["get", "events", "--field-selector=involvedObject.name=patient"])?;
    ensure!(events.contains("Evicted") && !events.contains("FailedPreStopHook"), "{events}");
    cluster.kubectl.ok(&["delete", "pod", "patient", "--timeout=60s"])?;
    remove_own(cluster)
}

pub fn a_node_s_metrics_hold_the_kubelet_s_series_and_our_own(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: counted}\nspec: {nodeName: worker-1, containers: [{name: c, image: 'hello:1', readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}}]}\n";
    kubectl.ok_with(&["apply", "-f", "-"], pod)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/counted", "--timeout=60s"])?;
    let text = kubectl.ok(&["get", "--raw", "/api/v1/nodes/worker-1/proxy/metrics"])?;
    let value = |series: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.with_context(|| format!("no {series} in\n{text}"))?.trim().parse().context("a number")
    };
    ensure!(value("kubelet_node_name{node=\"worker-1\"}")? == 1.0);
    for series in [
        "kubelet_running_pods",
        "kubelet_running_containers{container_state=\"running\"}",
        "kubelet_pod_start_duration_seconds_count",
        "shoal_instantiate_duration_seconds_count",
        "shoal_module_load_duration_seconds_count",
        "shoal_function_requests_total{outcome=\"answered\"}",
    ] {
        ensure!(value(series)? >= 1.0, "{series}\n{text}");
    }
    for series in ["shoal_instances", "shoal_queue_refusals_total", "kubelet_started_containers_errors_total"] {
        value(series)?;
    }
    let summary: Value =
        serde_json::from_str(&kubectl.ok(&["get", "--raw", "/api/v1/nodes/worker-1/proxy/stats/summary"])?)?;
    ensure!(summary["node"]["fs"]["capacityBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{summary}");
    kubectl.ok(&["delete", "pod", "counted", "--timeout=60s"])?;
    Ok(())
}
