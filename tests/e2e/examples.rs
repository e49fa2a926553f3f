//! The bundled examples, as a user meets them: pushed, applied, asked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use shoal_tests::{Answer, Cluster, eventually, get};

/// The addresses of the two workers, where NodePorts listen.
pub const WORKERS: [&str; 2] = ["127.0.1.1", "127.0.1.2"];

/// How long something may take that usually takes a second or two; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

const NAMES: [&str; 13] = [
    "hello", "back", "front", "ticker", "journal", "echo", "teller", "louder", "tally", "chorus", "batch", "tandem",
    "unruly",
];

/// A file of a bundled example.
pub fn example(name: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-examples").join(name).join(file)
}

pub fn the_bundled_examples_start(cluster: &mut Cluster) -> anyhow::Result<()> {
    for name in NAMES {
        let module = example(name, &format!("{name}.wasm"));
        let printed = cluster.shoal(&["push", &module.to_string_lossy(), &format!("{name}:1")])?;
        ensure!(printed.lines().last() == Some(&format!("{name}:1")), "push printed {printed:?}");
        cluster.kubectl.ok(&["apply", "-f", &example(name, "manifest.yaml").to_string_lossy()])?;
    }
    for name in ["hello", "back", "front", "ticker", "echo", "teller", "louder", "tally", "chorus"] {
        let deployment = format!("deployment/{name}");
        let printed = cluster.kubectl.ok(&["wait", "--for=condition=Available", &deployment, "--timeout=60s"])?;
        ensure!(printed.contains("condition met"), "{printed}");
        let printed = cluster.kubectl.ok(&["rollout", "status", &deployment, "--timeout=60s"])?;
        ensure!(printed.contains("successfully rolled out"), "{printed}");
    }
    Ok(())
}

pub fn functions_answer_on_every_worker(_: &mut Cluster) -> anyhow::Result<()> {
    for worker in WORKERS {
        let answer = eventually("hello answers", PATIENCE, || answered(&format!("{worker}:30080"), "/"))?;
        ensure!(answer.body.starts_with("Hello from hello-"), "{answer:?}");
    }
    // All three pods get requests, whichever worker they are on.
    let mut pods = std::collections::BTreeSet::new();
    eventually("three pods answered", PATIENCE, || {
        pods.insert(answered("127.0.1.1:30080", "/")?.body);
        ensure!(pods.len() == 3, "only {pods:?} answered");
        Ok(())
    })
}

pub fn a_function_reaches_another_by_its_service(_: &mut Cluster) -> anyhow::Result<()> {
    let answer = eventually("front answers", PATIENCE, || answered("127.0.1.2:30081", "/shoal"))?;
    ensure!(answer.body.starts_with("front asked back: /SHOAL says back-"), "{answer:?}");
    Ok(())
}

pub fn a_function_talks_by_tcp(_: &mut Cluster) -> anyhow::Result<()> {
    let answer = eventually("teller answers", PATIENCE, || answered("127.0.1.1:30084", "/ahoy"))?;
    let is_echo = answer.body.starts_with("teller heard: echo of echo-") && answer.body.ends_with("\nahoy\n");
    ensure!(is_echo, "{answer:?}");
    Ok(())
}

pub fn modules_of_wasi_0_3_run(cluster: &mut Cluster) -> anyhow::Result<()> {
    let answer = eventually("louder answers", PATIENCE, || answered("127.0.1.2:30085", "/"))?;
    ensure!(answer.body == "say something, and hear it louder\n", "{answer:?}");
    // The answer begins before the request has ended.
    let mut stream = TcpStream::connect("127.0.1.1:30085")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: louder\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut heard = String::new();
    for word in ["once", "twice"] {
        write!(stream, "{:x}\r\n{word}\r\n", word.len())?;
        while !heard.contains(&word.to_uppercase()) {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece)?;
            ensure!(length > 0, "it ended with {heard:?}");
            heard.push_str(std::str::from_utf8(&piece[..length])?);
        }
    }
    ensure!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard:?}");
    cluster.kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/tandem", "--timeout=60s"])?;
    let log = cluster.kubectl.ok(&["logs", "tandem"])?;
    ensure!(log == "100 ms have passed\n300 ms have passed\n", "{log:?}");
    Ok(())
}

pub fn a_process_prints_what_its_config_map_says(cluster: &mut Cluster) -> anyhow::Result<()> {
    eventually("the ticker prints its message", PATIENCE, || {
        let log = cluster.kubectl.ok(&["logs", "deployment/ticker"])?;
        ensure!(log.contains("the tide is in"), "{log}");
        ensure!(log.contains(r#"["ticker", "--from", "manifest"]"#), "{log}");
        Ok(())
    })?;
    let patch = r#"{"data":{"message":"the tide is out"}}"#;
    cluster.kubectl.ok(&["patch", "configmap", "ticker", "--type=merge", "-p", patch])?;
    eventually("the mounted file follows its ConfigMap", Duration::from_secs(90), || {
        let log = cluster.kubectl.ok(&["logs", "deployment/ticker", "--tail=1"])?;
        ensure!(log.contains("the tide is out"), "{log}");
        Ok(())
    })
}

pub fn a_computation_ends_with_its_answer(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/batch", "--timeout=60s"])?;
    let log = cluster.kubectl.ok(&["logs", "batch"])?;
    ensure!(log == "there are 148933 primes below 2000000\n", "{log:?}");
    let row = cluster.kubectl.ok(&["get", "pod", "batch", "--no-headers"])?;
    ensure!(row.contains("Completed"), "{row}");
    Ok(())
}

pub fn limits_hold_while_the_neighbours_answer(cluster: &mut Cluster) -> anyhow::Result<()> {
    eventually("the eater is ended by its limit", PATIENCE, || {
        let path = "jsonpath={.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}";
        let state = cluster.kubectl.ok(&["get", "pod", "unruly-eat", "-o", path])?;
        ensure!(state == "OOMKilled 137", "{state:?}");
        Ok(())
    })?;
    cluster.kubectl.ok(&["wait", "--for=condition=Ready", "pod/unruly-spin", "--timeout=60s"])?;
    for _ in 0..50 {
        for worker in WORKERS {
            answered(&format!("{worker}:30080"), "/")?;
        }
    }
    cluster.kubectl.ok(&["delete", "pod", "unruly-spin", "unruly-eat", "--timeout=60s"])?;
    Ok(())
}

/// A request that must be answered with 200.
pub fn answered(address: &str, path: &str) -> anyhow::Result<Answer> {
    let answer = get(address, path)?;
    ensure!(answer.status == 200, "{address}{path}: {answer:?}");
    Ok(answer)
}
