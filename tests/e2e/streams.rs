//! Commands in containers, files in and out of them, and connections to them: exec, attach, cp, port-forward.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use anyhow::{Context, ensure};
use shoal_tests::{Cluster, Tool, eventually, get};

use crate::examples::{PATIENCE, example};
use crate::kubectl::read_along;

/// Makes kubectl speak SPDY, as it did before version 1.31.
const SPDY: (&str, &str) = ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");

/// A process with a directory of its own and a function beside it.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: workshop}
spec:
  containers:
    - name: process
      image: ticker:1
      env: [{name: TOOL, value: hammer and tongs}, {name: MESSAGE, value: the tide is high}]
      volumeMounts: [{name: bench, mountPath: /bench}]
    - name: function
      image: hello:1
      ports: [{name: http, containerPort: 8080}]
      volumeMounts: [{name: bench, mountPath: /bench, readOnly: true}]
  volumes: [{name: bench, emptyDir: {}}]
"#;

/// The pod, once it is ready; the cases below share it.
fn workshop(kubectl: &Tool) -> anyhow::Result<()> {
    kubectl.ok_with(&["apply", "-f", "-"], POD)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/workshop", "--timeout=60s"])?;
    Ok(())
}

pub fn exec_runs_a_command_and_gives_back_its_output_and_exit_code(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    workshop(kubectl)?;
    let exec = |container: &'static str, words: &[&str]| -> Vec<String> {
        let head = ["exec", "workshop", "-c", container, "--"];
        head.iter().chain(words).map(|word| (*word).to_owned()).collect()
    };
    // A process has a place for what it says at its end, too.
    for (container, mounts) in [("process", "bench\ndev\n"), ("function", "bench\n")] {
        let words = exec(container, &["ls", "/"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        ensure!(kubectl.ok(&words)? == mounts, "the root of {container} is its mounts");
    }
    let told = kubectl.ok(&["exec", "workshop", "-c", "process", "--", "sh", "-c", "echo \"$TOOL\" | wc -w"])?;
    ensure!(told.trim() == "3", "{told}");
    kubectl.ok(&[
        "exec",
        "workshop",
        "-c",
        "process",
        "--",
        "sh",
        "-c",
        "echo oak > /bench/plank && cat /bench/plank",
    ])?;
    // What one container wrote the other sees; it may not write there.
    ensure!(kubectl.ok(&["exec", "workshop", "-c", "function", "--", "cat", "/bench/plank"])? == "oak\n", "the plank");
    let refused = kubectl.run(&["exec", "workshop", "-c", "function", "--", "rm", "/bench/plank"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("/bench/plank"), "{refused:?}");

    let ended = kubectl.run(&["exec", "workshop", "-c", "process", "--", "sh", "-c", "exit 7"])?;
    ensure!(ended.code == 7 && ended.stderr.contains("command terminated with exit code 7"), "{ended:?}");
    let unknown = kubectl.run(&["exec", "workshop", "-c", "function", "--", "bash"])?;
    ensure!(unknown.code != 0 && unknown.stderr.contains("executable file not found"), "{unknown:?}");
    ensure!(unknown.stderr.contains("sh"), "the error says what there is: {unknown:?}");
    let missing = kubectl.run(&["exec", "workshop", "-c", "drawer", "--", "ls"])?;
    ensure!(missing.code != 0 && missing.stderr.contains("drawer"), "{missing:?}");
    Ok(())
}

pub fn exec_passes_input_in_both_protocols(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    workshop(kubectl)?;
    // Longer than every buffer on the way, so that both directions have to wait for one another.
    let text = "a plank of oak, three fingers wide\n".repeat(60_000);
    for variables in [&[][..], &[SPDY]] {
        let arguments = ["exec", "-i", "workshop", "-c", "process", "--", "cat"];
        let mut child = kubectl
            .command(&arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no input")?;
        let input = text.clone();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        ensure!(output.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.stdout == text.as_bytes(), "{variables:?}: {} of {} bytes", output.stdout.len(), text.len());
        let failed = kubectl
            .command(&["exec", "workshop", "-c", "process", "--", "sh", "-c", "exit 3"])
            .envs(variables.iter().copied())
            .output()?;
        ensure!(failed.status.code() == Some(3), "{variables:?}: {failed:?}");
    }
    Ok(())
}

pub fn cp_carries_files_both_ways(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    workshop(kubectl)?;
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("drawings");
    fs::create_dir_all(source.join("old"))?;
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(source.join("chair.bin"), &bytes)?;
    fs::write(source.join("old/stool.txt"), "three legs\n")?;
    let path = |path: &std::path::Path| path.display().to_string();
    kubectl.ok(&["cp", &path(&source), "workshop:/bench/drawings", "-c", "process"])?;
    let stool = kubectl.ok(&["exec", "workshop", "-c", "function", "--", "cat", "/bench/drawings/old/stool.txt"])?;
    ensure!(stool == "three legs\n", "{stool}");
    let back = folder.path().join("back");
    kubectl.ok(&["cp", "workshop:/bench/drawings", &path(&back), "-c", "function"])?;
    ensure!(fs::read(back.join("chair.bin"))? == bytes, "the chair came back changed");
    ensure!(fs::read_to_string(back.join("old/stool.txt"))? == "three legs\n", "the stool came back changed");
    Ok(())
}

pub fn port_forward_reaches_a_function_and_names_a_closed_port(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    workshop(kubectl)?;
    for variables in [&[][..], &[("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")]] {
        let forward = Forward::start(kubectl, variables, &["pod/workshop", ":8080"])?;
        // More than once: the client opens a connection for each.
        for _ in 0..3 {
            let answer = get(&forward.addresses[0], "/")?;
            ensure!(answer.status == 200, "{variables:?}: {answer:?}");
        }
        let mut closed = Forward::start(kubectl, variables, &["pod/workshop", ":9"])?;
        ensure!(get(&closed.addresses[0], "/").is_err(), "{variables:?}: nothing listens on port 9");
        // kubectl ends when a connection is refused.
        let told = closed.errors.recv_timeout(PATIENCE).context("kubectl said nothing")?;
        ensure!(told.contains("nothing listens at"), "{variables:?}: {told}");
        closed.child.wait()?;
    }
    Ok(())
}

pub fn attach_shows_what_a_container_prints_and_types_to_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    workshop(kubectl)?;
    let mut child = kubectl.command(&["attach", "workshop", "-c", "process"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let seen = lines.next().context("nothing was printed")?;
    child.kill()?;
    child.wait()?;
    ensure!(seen?.contains("the tide is"), "attach shows the output");

    let module = example("toolbox", "toolbox.wasm");
    cluster.shoal(&["push", &module.to_string_lossy(), "toolbox:1"])?;
    // `kubectl run -i` attaches to the input of a container that waits for it.
    let printed = kubectl.ok_with(
        &["run", "reader", "--image=toolbox:1", "-i", "--rm", "--restart=Never", "--command", "--", "sh"],
        "echo heard $((\n echo heard you\nexit 0\n",
    )?;
    ensure!(printed.contains("heard you"), "{printed}");
    eventually("the pod is gone", PATIENCE, || {
        ensure!(kubectl.run(&["get", "pod", "reader"])?.code != 0, "it is still there");
        Ok(())
    })
}

pub fn probes_and_hooks_run_commands(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: checked}
spec:
  containers:
    - name: process
      image: ticker:1
      volumeMounts: [{name: bench, mountPath: /bench}]
      lifecycle: {postStart: {exec: {command: [touch, /bench/begun]}}}
      readinessProbe: {periodSeconds: 1, exec: {command: [sh, -c, test -f /bench/ready]}}
      livenessProbe: {periodSeconds: 1, failureThreshold: 1, exec: {command: [sh, -c, test ! -f /bench/broken]}}
  volumes: [{name: bench, emptyDir: {}}]
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    let sh = |text: &str| kubectl.ok(&["exec", "checked", "--", "sh", "-c", text]);
    eventually("the hook has run", PATIENCE, || sh("test -f /bench/begun"))?;
    let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    ensure!(kubectl.ok(&["get", "pod", "checked", "-o", ready])? == "False", "it was ready before its probe said so");
    sh("touch /bench/ready")?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/checked", "--timeout=60s"])?;
    sh("touch /bench/broken")?;
    eventually("the liveness probe restarts it", PATIENCE, || {
        let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
        let restarts: u32 = kubectl.ok(&["get", "pod", "checked", "-o", restarts])?.parse()?;
        ensure!(restarts > 0, "it has not restarted");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod/checked", "pod/workshop", "--timeout=60s"])?;
    Ok(())
}

/// `kubectl port-forward` with ports of its own choice; it ends with this.
pub struct Forward {
    child: Child,
    /// Where it listens, one for each port.
    pub addresses: Vec<String>,
    /// Kept: it would die of a closed pipe when it tells of a connection.
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
}

impl Forward {
    pub fn start(kubectl: &Tool, variables: &[(&str, &str)], arguments: &[&str]) -> anyhow::Result<Forward> {
        let words: Vec<&str> = ["port-forward", "--address=127.0.0.1"].iter().chain(arguments).copied().collect();
        let mut child = kubectl
            .command(&words)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = read_along(child.stdout.take().context("no output")?);
        let errors = read_along(child.stderr.take().context("no errors")?);
        let mut forward = Forward { child, addresses: Vec::new(), lines, errors };
        while forward.addresses.len() < arguments.len() - 1 {
            let line = forward.lines.recv_timeout(PATIENCE).context("kubectl port-forward ended")?;
            let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
            forward.addresses.push(address.with_context(|| format!("not a forwarding: {line}"))?.to_owned());
        }
        Ok(forward)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
