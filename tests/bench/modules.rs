//! Many functions that are not alike: what each costs a worker when every one has a module of its own, beside as many of one module; and
//! how soon a function that is added answers, its module compiled already.
//!
//! SHOAL_BENCH_MODULES says how many (default 200). The worker is started again before its memory is looked at: what compiling left
//! behind is no part of it.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Service};
use rustix::process::Signal;
use serde_json::json;
use shoal_client::{DeleteOptions, ListOptions, empty_body};
use shoal_tests::{Cluster, eventually, get};

use crate::report::{Report, Times};
use crate::{block_on, client, density, functions, machine, startup};

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wasm-examples/hello/hello.wasm");
const WORKER: [u8; 4] = [127, 0, 1, 1];
const FIRST_PORT: u16 = 31_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// Until code that nobody asks for is out of memory, and until the worker has given back what asking each took: less than the former.
const IDLE: Duration = Duration::from_secs(80);
const SETTLED: Duration = Duration::from_secs(25);
/// How often a function is added.
const ROUNDS: usize = 30;

/// Both parts, on the only worker.
pub fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    startup::push(cluster)?;
    added(cluster, report)?;
    let count = density::count("SHOAL_BENCH_MODULES", 200)?;
    push_distinct(cluster, count)?;
    let one = |_| "hello:1".to_owned();
    let alike = loaded(cluster, count, one, Way::Proxy)?;
    let distinct = loaded(cluster, count, |number| format!("module-{number}:1"), Way::Proxy)?;
    let with_ports = loaded(cluster, count, one, Way::NodePort)?;
    let lines = [("one module", &alike), ("a module each", &distinct), ("one module, a node port each", &with_ports)];
    for (what, [half, all]) in lines {
        let further = |of: fn(&Memory) -> u64| of(all).saturating_sub(of(half)) as f64 / (count - count / 2) as f64;
        report.add(
            format!("{count} functions of {what}, each asked once"),
            format!(
                "{:.0} MiB; {:.0} KiB for a further one before it was asked, {:.0} KiB after",
                all.asked as f64 / 1024.0,
                further(|memory| memory.waiting),
                further(|memory| memory.asked),
            ),
        );
    }
    Ok(())
}

/// Memory of the worker in KiB, its share.
struct Memory {
    /// Before any was asked.
    waiting: u64,
    /// When each was asked once, and nobody asks more.
    asked: u64,
}

/// Pushes so many modules that differ in a section that nobody runs.
fn push_distinct(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    let hello = std::fs::read(HELLO).with_context(|| format!("failed to read {HELLO}"))?;
    let folder = tempfile::tempdir()?;
    for number in 0..count {
        let name = format!("n{number:06}");
        // A custom section: its kind, its length, the length of its name, the name.
        let section = [&[0, 8, 7][..], name.as_bytes()].concat();
        let file = folder.path().join(format!("{name}.wasm"));
        std::fs::write(&file, [&hello[..], &section].concat())?;
        cluster.shoal(&["push", &file.to_string_lossy(), &format!("module-{number}:1")])?;
    }
    Ok(())
}

/// How functions are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the API: a function without a Service.
    Proxy,
    /// Through a port of the node that is its Service's.
    NodePort,
}

/// Deploys half of so many functions, then all; starts the worker again each time, and asks each once.
fn loaded(cluster: &Cluster, count: usize, image: impl Fn(usize) -> String, way: Way) -> anyhow::Result<[Memory; 2]> {
    let half = deployed(cluster, 0..count / 2, &image, way)?;
    let all = deployed(cluster, count / 2..count, &image, way)?;
    block_on(async {
        let client = client(cluster, 0)?;
        for number in 0..count {
            client.delete::<Pod>("default", &name(number), &DeleteOptions::default()).await?;
            if way == Way::NodePort {
                client.delete::<Service>("default", &name(number), &DeleteOptions::default()).await?;
            }
        }
        Ok(())
    })?;
    ready(cluster, 0)?;
    Ok([half, all])
}

fn name(number: usize) -> String {
    format!("many-{number}")
}

/// Deploys these beside those before them.
fn deployed(
    cluster: &Cluster,
    more: Range<usize>,
    image: impl Fn(usize) -> String,
    way: Way,
) -> anyhow::Result<Memory> {
    let count = more.end;
    block_on(async {
        let client = client(cluster, 0)?;
        for number in more.clone() {
            let (pod, service) = function(&name(number), &image(number), port(number)?)?;
            client.create(&pod).await?;
            if way == Way::NodePort {
                client.create(&service).await?;
            }
        }
        Ok(())
    })?;
    more.into_iter().try_for_each(|number| answers(cluster, number, way))?;
    restart(cluster)?;
    ready(cluster, count)?;
    std::thread::sleep(IDLE);
    let pid = functions::worker(cluster)?;
    let waiting = machine::memory(pid)?.1;
    (0..count).try_for_each(|number| answers(cluster, number, way))?;
    std::thread::sleep(SETTLED);
    Ok(Memory { waiting, asked: machine::memory(pid)?.1 })
}

/// Until so many are there, and ready.
fn ready(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    eventually(&format!("{count} are ready"), PATIENCE, || {
        let pods = block_on(async {
            let client = client(cluster, 0)?;
            Ok(client.list::<Pod>("default", &ListOptions::default()).await?)
        })?;
        let many: Vec<_> = pods
            .items
            .iter()
            .filter(|pod| pod.metadata.labels.as_ref().is_some_and(|l| l["app"].starts_with("many-")))
            .collect();
        let ready = many.iter().filter(|pod| startup::is_pod_ready(pod)).count();
        anyhow::ensure!(many.len() == count && ready == count, "{} are there, {ready} ready", many.len());
        Ok(())
    })
}

fn port(number: usize) -> anyhow::Result<u16> {
    let port = u16::try_from(number).ok().and_then(|number| FIRST_PORT.checked_add(number));
    port.filter(|port| *port < 32_768).with_context(|| format!("there is no node port for number {number}"))
}

fn function(name: &str, image: &str, port: u16) -> anyhow::Result<(Pod, Service)> {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        // Variables for hundreds of Services would be most of what a function costs.
        "spec": {"enableServiceLinks": false, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    let service = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http", "nodePort": port}]},
    });
    Ok((serde_json::from_value(pod)?, serde_json::from_value(service)?))
}

fn answers(cluster: &Cluster, number: usize, way: Way) -> anyhow::Result<()> {
    let address = SocketAddr::from((WORKER, port(number)?)).to_string();
    eventually(&format!("number {number} answers"), PATIENCE, || {
        let status = match way {
            Way::NodePort => get(&address, "/")?.status,
            Way::Proxy => block_on(async {
                let path = format!("/api/v1/namespaces/default/pods/{}:8080/proxy/", name(number));
                let answer = client(cluster, 0)?.raw(http::Request::get(path).body(empty_body())?).await?;
                Ok(answer.status().as_u16())
            })?,
        };
        anyhow::ensure!(status == 200, "it answers {status}");
        Ok(())
    })
}

fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.signal("worker-1", Signal::TERM)?;
    let pid = functions::worker(cluster)?;
    eventually("the worker ends", PATIENCE, || {
        anyhow::ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it runs");
        Ok(())
    })?;
    cluster.restart_member("worker-1")
}

/// From the request that creates a function to its first answer through a node port that was there before.
fn added(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let address = SocketAddr::from((WORKER, FIRST_PORT)).to_string();
    let (pod, service) = function("added", "hello:1", FIRST_PORT)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = client(cluster, 0)?;
    runtime.block_on(client.create(&service))?;
    for round in 0..ROUNDS {
        let begun = Instant::now();
        runtime.block_on(client.create(&pod))?;
        while !get(&address, "/").is_ok_and(|answer| answer.status == 200) {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{address} does not answer");
            std::thread::sleep(Duration::from_micros(500));
        }
        // The first finds the module not yet compiled.
        if round > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        runtime.block_on(client.delete::<Pod>("default", "added", &DeleteOptions::default()))?;
        eventually("nobody answers any more", PATIENCE, || {
            anyhow::ensure!(!get(&address, "/").is_ok_and(|answer| answer.status == 200), "somebody does");
            Ok(())
        })?;
        eventually("the pod is gone", PATIENCE, || {
            anyhow::ensure!(runtime.block_on(client.get::<Pod>("default", "added")).is_err(), "it is there");
            Ok(())
        })?;
    }
    runtime.block_on(client.delete::<Service>("default", "added", &DeleteOptions::default()))?;
    report.add("a function added, from the API to its first answer", Times::new(times).text());
    Ok(())
}
