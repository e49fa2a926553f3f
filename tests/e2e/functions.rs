//! How functions work where their pods' annotations say so.

use anyhow::ensure;
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, WORKERS, answered, example};

/// A pod of a function with these annotations, and its Service.
fn function(name: &str, image: &str, annotations: &str, node_port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{{annotations}}}}}\n\
         spec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: function, image: '{image}', \
         ports: [{{name: http, containerPort: 8080}}]}}]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: NodePort\n  selector: {{app: {name}}}\n  \
         ports: [{{port: 80, targetPort: http, nodePort: {node_port}}}]\n---\n"
    )
}

pub fn instances_of_wasi_0_3_are_reused_where_the_pod_says_so(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("tally", "tally.wasm").to_string_lossy(), "tally:1"])?;
    let kubectl = &cluster.kubectl;
    let reuse = "shoal.dev/reuse-instances: '1', shoal.dev/reuse-requests: '3', shoal.dev/reuse-concurrency: '2'";
    let pods = function("kept", "tally:1", reuse, 30_118) + &function("fresh", "tally:1", "", 30_119);
    kubectl.ok_with(&["apply", "-f", "-"], &pods)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/kept", "pod/fresh", "--timeout=60s"])?;
    let address = |port: u16| format!("{}:{port}", WORKERS[0]);
    let mut heard = Vec::new();
    eventually("an instance answers its last request", PATIENCE, || {
        heard.push(answered(&address(30_118), "/")?.body);
        ensure!(heard.iter().any(|line| line.starts_with("request 3 of")), "{heard:?}");
        Ok(())
    })?;
    ensure!(!heard.iter().any(|line| line.starts_with("request 4 of")), "{heard:?}");
    eventually("an instance has two requests at once", PATIENCE, || {
        let waits = || {
            let address = address(30_118);
            std::thread::spawn(move || answered(&address, "/wait/200"))
        };
        let lines = [waits(), waits()].map(|waiting| waiting.join().expect("it does not panic"));
        let lines = lines.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(lines.iter().any(|answer| answer.body.ends_with(" 2 at once\n")), "{lines:?}");
        Ok(())
    })?;
    for _ in 0..10 {
        let line = eventually("a fresh instance answers", PATIENCE, || answered(&address(30_119), "/"))?.body;
        ensure!(line == "request 1 of this instance, 1 at once\n", "{line:?}");
    }
    kubectl.ok(&["delete", "pod/kept", "service/kept", "pod/fresh", "service/fresh", "--timeout=60s"])?;
    Ok(())
}

pub fn what_cannot_be_reused_so_is_named(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("hello", "hello.wasm").to_string_lossy(), "hello:1"])?;
    let kubectl = &cluster.kubectl;
    let several = "shoal.dev/reuse-instances: '1', shoal.dev/reuse-concurrency: '2'";
    let pods = function("several", "hello:1", several, 30_118)
        + &function("endless", "hello:1", "shoal.dev/reuse-concurrency: 'all'", 30_119);
    kubectl.ok_with(&["apply", "-f", "-"], &pods)?;
    eventually("both say why they do not run", PATIENCE, || {
        let why = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
        let told = kubectl.ok(&["get", "pod", "several", "-o", why])?;
        ensure!(told.contains("metadata.annotations[shoal.dev/reuse-concurrency]: must be 1"), "{told:?}");
        ensure!(told.contains("WASI 0.2 answers one request at a time"), "{told:?}");
        let told = kubectl.ok(&["get", "pod", "endless", "-o", "jsonpath={.status.phase}: {.status.message}"])?;
        let wanted = "Failed: metadata.annotations[shoal.dev/reuse-concurrency]: must be a number from 1 to 1000";
        ensure!(told.starts_with(wanted), "{told:?}");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod/several", "service/several", "pod/endless", "service/endless", "--timeout=60s"])?;
    Ok(())
}
