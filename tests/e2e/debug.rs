//! `kubectl debug`: containers that come to a pod that runs, see what it sees, and run once.

use anyhow::ensure;
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, example};

const PATIENT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: patient}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: ticker:1
      volumeMounts: [{name: bench, mountPath: /bench}]
  volumes: [{name: bench, emptyDir: {}}]
"#;

pub fn an_ephemeral_container_sees_what_its_pod_sees(cluster: &mut Cluster) -> anyhow::Result<()> {
    for name in ["ticker", "toolbox", "hello"] {
        cluster.shoal(&["push", &example(name, &format!("{name}.wasm")).to_string_lossy(), &format!("{name}:1")])?;
    }
    let kubectl = &cluster.kubectl;
    kubectl.ok_with(&["apply", "-f", "-"], PATIENT)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/patient", "--timeout=60s"])?;
    kubectl.ok(&["exec", "patient", "--", "sh", "-c", "echo oak > /bench/plank"])?;
    let arguments = ["debug", "patient", "--image=toolbox:1", "-i", "--target=main", "-c", "doctor", "--", "sh"];
    let said = kubectl.run_with(&arguments, "cat /bench/plank\necho done with it\nexit 3\n")?;
    ensure!(said.stdout.contains("oak") && said.stdout.contains("done with it"), "{said:?}");
    let state = |name: &str, path: &str| {
        let path = format!("jsonpath={{.status.ephemeralContainerStatuses[?(@.name=='{name}')].{path}}}");
        kubectl.ok(&["get", "pod", "patient", "-o", &path])
    };
    eventually("its end is in the status", PATIENCE, || {
        let code = state("doctor", "state.terminated.exitCode")?;
        ensure!(code == "3" && state("doctor", "restartCount")? == "0", "exit code {code:?}");
        Ok(())
    })?;
    ensure!(kubectl.ok(&["logs", "patient", "-c", "doctor"])?.contains("oak"), "its log");

    kubectl.ok(&["debug", "patient", "--image=toolbox:1", "-c", "nurse", "--", "sleep", "600"])?;
    eventually("the second one runs", PATIENCE, || {
        ensure!(!state("nurse", "state.running.startedAt")?.is_empty(), "not yet");
        Ok(())
    })?;
    // It names no target: it sees the files of all.
    ensure!(kubectl.ok(&["exec", "patient", "-c", "nurse", "--", "cat", "/bench/plank"])? == "oak\n", "the plank");

    kubectl.ok(&["debug", "patient", "--image=hello:1", "-c", "visitor"])?;
    kubectl.ok(&["debug", "patient", "--image=busybox", "-c", "stranger"])?;
    eventually("what cannot run says why", PATIENCE, || {
        let told = state("visitor", "state.waiting.message")?;
        ensure!(told.contains("HTTP function"), "a function: {told:?}");
        let reason = state("stranger", "state.waiting.reason")?;
        ensure!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "no Wasm: {reason:?}");
        Ok(())
    })?;
    let well = kubectl.ok(&[
        "get",
        "pod",
        "patient",
        "-o",
        "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}",
    ])?;
    ensure!(well == "Running 0", "the pod itself is {well}");
    let twice = kubectl.run(&["debug", "patient", "--image=toolbox:1", "-c", "main"])?;
    ensure!(twice.code != 0 && twice.stderr.contains("main"), "{twice:?}");
    kubectl.ok(&["delete", "pod/patient", "--timeout=60s"])?;
    Ok(())
}
