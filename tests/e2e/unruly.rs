//! Guests that misbehave, beside one that does not: it answers on, the worker takes no more memory than it may, and it is told what happened.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use shoal_tests::{Cluster, Growth, eventually};

use crate::examples::{PATIENCE, WORKERS, answered, example};

/// The node port of the function that has 5 s for a request.
const HURRIED: u16 = 30_131;
/// Of the one that has a minute.
const PATIENT: u16 = 30_132;
/// Of their neighbour, which behaves.
const NEIGHBOUR: u16 = 30_133;

/// What the worker may grow by at most: much less than each of these guests would have it hold.
const BOUND: u64 = 192 << 20;

fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("rude", "rude.wasm").to_string_lossy(), "rude:1"])?;
    cluster.shoal(&["push", &example("hello", "hello.wasm").to_string_lossy(), "hello:1"])?;
    let function = |name: &str, image: &str, port: u16, timeout: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, case: unruly}}, annotations: {{shoal.dev/request-timeout: {timeout}}}}}
spec:
  nodeName: worker-1
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: {image}
      env: [{{name: CROWD, value: "http://hurried/sleep"}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, labels: {{case: unruly}}}}
spec: {{type: NodePort, selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080, nodePort: {port}}}]}}
---
"#
        )
    };
    let manifest = function("hurried", "rude:1", HURRIED, "5s")
        + &function("patient", "rude:1", PATIENT, "60s")
        + &function("neighbour", "hello:1", NEIGHBOUR, "5s");
    cluster.kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    cluster.kubectl.ok(&["wait", "--for=condition=Ready", "pods", "-l", "case=unruly", "--timeout=60s"])?;
    for port in [HURRIED, PATIENT, NEIGHBOUR] {
        eventually("it answers", PATIENCE, || answered(&format!("{}:{port}", WORKERS[0]), "/"))?;
    }
    Ok(())
}

fn remove(cluster: &Cluster) -> anyhow::Result<()> {
    let none_restarted = "jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    let restarts = cluster.kubectl.ok(&["get", "pods", "-l", "case=unruly", "-o", none_restarted])?;
    ensure!(restarts == "0 0 0", "{restarts:?}");
    cluster.kubectl.ok(&["delete", "pods,services", "-l", "case=unruly", "--timeout=60s"])?;
    Ok(())
}

/// The neighbour answers, again and again.
fn neighbour_answers() -> anyhow::Result<()> {
    for _ in 0..50 {
        let answer = answered(&format!("{}:{NEIGHBOUR}", WORKERS[0]), "/")?;
        ensure!(answer.body.starts_with("Hello from"), "{answer:?}");
    }
    Ok(())
}

fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect((WORKERS[0], port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks by HTTP/1.0, whose answer ends with its connection; gives what came behind the head of an answer with 200.
fn body_of(port: u16, path: &str, mut take: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let mut stream = connect(port)?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: rude\r\n\r\n")?;
    let mut head = Vec::new();
    let mut piece = vec![0; 256 * 1024];
    loop {
        let length = stream.read(&mut piece)?;
        ensure!(length > 0, "it ended within its head: {:?}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&piece[..length]);
        let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        ensure!(head.starts_with(b"HTTP/1.0 200"), "{:?}", String::from_utf8_lossy(&head[..end]));
        take(&head[end + 4..]);
        break;
    }
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => take(&piece[..length]),
        }
    }
}

pub fn an_answer_without_end_is_held_back_by_who_reads_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    deploy(cluster)?;
    let growth = Growth::of(cluster, "worker-1")?;
    let mut unread = Vec::new();
    for _ in 0..32 {
        let mut stream = connect(PATIENT)?;
        stream.write_all(b"GET /flood HTTP/1.1\r\nhost: rude\r\n\r\n")?;
        let mut begin = [0; 15];
        stream.read_exact(&mut begin)?;
        ensure!(&begin == b"HTTP/1.1 200 OK", "{:?}", String::from_utf8_lossy(&begin));
        unread.push(stream);
    }
    neighbour_answers()?;
    let (mut read, wanted) = (0, 2u64 << 30);
    body_of(PATIENT, &format!("/flood?{wanted}"), |piece| read += piece.len() as u64)?;
    ensure!(read == wanted, "{read} of {wanted} bytes came");
    neighbour_answers()?;
    let grown = growth.most_bytes()?;
    ensure!(grown < BOUND, "the worker has grown by {grown} bytes");
    drop(unread);
    remove(cluster)
}

/// Sends a body that has no end for as long as it is taken, and reads meanwhile: the answer, and how many bytes of the body were taken.
fn send_without_end(port: u16, path: &str) -> anyhow::Result<(String, u64)> {
    let mut stream = connect(port)?;
    write!(stream, "POST {path} HTTP/1.1\r\nhost: rude\r\ncontent-length: {}\r\n\r\n", 1u64 << 40)?;
    let mut reader = stream.try_clone()?;
    // It ends as well as the connection.
    let sender = thread::spawn(move || {
        let piece = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        while let Ok(length) = stream.write(&piece) {
            sent += length as u64;
        }
        sent
    });
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    // Whoever does not want the rest of a body breaks the connection off.
    while let Ok(length) = reader.read(&mut piece)
        && length > 0
    {
        answer.extend_from_slice(&piece[..length]);
    }
    let _ = reader.shutdown(std::net::Shutdown::Both);
    let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
    Ok((String::from_utf8_lossy(&answer).into_owned(), sent))
}

pub fn a_body_that_nobody_reads_stays_with_its_sender(cluster: &mut Cluster) -> anyhow::Result<()> {
    deploy(cluster)?;
    let growth = Growth::of(cluster, "worker-1")?;
    let (answer, sent) = send_without_end(PATIENT, "/deaf")?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("it was not read"), "{answer:?}");
    // What lies in the buffers of both ends' kernels counts as sent.
    ensure!(sent < 64 << 20, "{sent} bytes were taken for nobody");
    let late = thread::spawn(|| send_without_end(HURRIED, "/sleep"));
    neighbour_answers()?;
    let (answer, sent) = late.join().map_err(|_| anyhow::anyhow!("the asker panicked"))??;
    ensure!(answer.starts_with("HTTP/1.1 504") && answer.contains("the function took too long"), "{answer:?}");
    ensure!(sent < 64 << 20, "{sent} bytes were taken for nobody");
    let grown = growth.most_bytes()?;
    ensure!(grown < BOUND, "the worker has grown by {grown} bytes");
    eventually("it is told that it took too long", PATIENCE, || {
        let events = cluster.kubectl.ok(&["get", "events", "--field-selector=involvedObject.name=hurried"])?;
        ensure!(events.contains("FunctionFailed") && events.contains("it took longer than 5s"), "{events}");
        Ok(())
    })?;
    remove(cluster)
}

pub fn a_thousand_requests_at_once_are_all_answered(cluster: &mut Cluster) -> anyhow::Result<()> {
    deploy(cluster)?;
    let growth = Growth::of(cluster, "worker-1")?;
    // Whom it asks sleeps: what can wait does, and the rest is told to come again.
    let asking = thread::spawn(|| {
        let mut told = Vec::new();
        body_of(PATIENT, "/fork?1000", |piece| told.extend_from_slice(piece)).map(|()| told)
    });
    while !asking.is_finished() {
        neighbour_answers()?;
    }
    let told = asking.join().map_err(|_| anyhow::anyhow!("the asker panicked"))??;
    let told = String::from_utf8(told)?;
    let mut answers = 0;
    for line in told.lines() {
        let (count, outcome) = line.split_once(" times ").with_context(|| format!("{told:?}"))?;
        ensure!(["503", "504"].contains(&outcome), "{told:?}");
        answers += count.parse::<u32>()?;
    }
    ensure!(answers == 1_000 && told.contains("504") && told.contains("503"), "{told:?}");
    let grown = growth.most_bytes()?;
    ensure!(grown < BOUND, "the worker has grown by {grown} bytes");
    remove(cluster)
}

pub fn a_process_that_sleeps_for_ever_is_ended(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("unruly", "unruly.wasm").to_string_lossy(), "unruly:1"])?;
    let kubectl = &cluster.kubectl;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: sleeper}
spec:
  activeDeadlineSeconds: 3
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: 'unruly:1', args: [sleep]}]
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"])?;
    eventually("its deadline ends it", Duration::from_secs(30), || {
        let of = |path: &str| kubectl.ok(&["get", "pod", "sleeper", "-o", &format!("jsonpath={{.status.{path}}}")]);
        ensure!(of("phase")? == "Failed" && of("reason")? == "DeadlineExceeded", "{}", of("phase")?);
        let end = of("containerStatuses[0].state.terminated")?;
        ensure!(end.contains(r#""exitCode":143"#), "{end}");
        Ok(())
    })?;
    let log = kubectl.ok(&["logs", "sleeper"])?;
    ensure!(log == "sleeping\n", "{log:?}");
    kubectl.ok(&["delete", "pod", "sleeper", "--timeout=60s"])?;
    Ok(())
}
