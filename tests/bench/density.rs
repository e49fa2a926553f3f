//! Many pods on one worker: how fast they start, what each costs, and how soon the last one answers its first request.
//!
//! SHOAL_BENCH_PODS says how many functions (default 1,000), SHOAL_BENCH_PROCESSES how many processes (default 1,000).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use shoal_client::{Cache, DeleteOptions, Selection};
use shoal_tests::{Cluster, get};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::report::Report;
use crate::{block_on, client, machine, startup};

const WORKER: &str = "dense";
const ADDRESS: [u8; 4] = [127, 0, 1, 77];
const NODE_PORT: u16 = 30_097;
/// Requests to the API at once.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(600);

/// Functions, then processes, on a worker of their own.
pub fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    startup::push(cluster)?;
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/../wasm-examples/journal/journal.wasm");
    cluster.shoal(&["push", module, "journal:1"])?;
    start_worker(cluster)?;
    let functions = count("SHOAL_BENCH_PODS", 1_000)?;
    let processes = count("SHOAL_BENCH_PROCESSES", 1_000)?;
    let hello = json!([{"name": "hello", "image": "hello:1", "ports": [{"name": "http", "containerPort": 8080}]}]);
    many(cluster, report, "functions", functions, &hello)?;
    first_request(cluster, report, functions)?;
    let idle = json!([{
        "name": "journal", "image": "journal:1",
        "env": [{"name": "STAY", "value": "1"}, {"name": "JOURNAL_FILE", "value": "/scratch/journal"}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }]);
    many(cluster, report, "processes", processes, &idle)
}

pub fn count(variable: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(variable) {
        Err(_) => Ok(default),
        Ok(text) => text.parse().with_context(|| format!("{variable}={text:?} is no number")),
    }
}

fn start_worker(cluster: &Cluster) -> anyhow::Result<()> {
    let rows = cluster.processes()?;
    let first = rows.iter().find(|row| row["name"] == "worker-1").context("no worker-1")?;
    let arguments: Vec<String> = serde_json::from_value(first["arguments"].clone())?;
    let join = arguments.iter().position(|argument| argument == "--join").and_then(|at| arguments.get(at + 1));
    let token = cluster.data().join("worker.token").display().to_string();
    let address = std::net::IpAddr::from(ADDRESS).to_string();
    let join = join.context("worker-1 does not say where it joins")?;
    cluster.add_worker(
        WORKER,
        &["--join", join, "--token-file", &token, "--address", &address, "--max-pods", "12000", "--eviction-hard", ""],
    )
}

fn worker(cluster: &Cluster) -> anyhow::Result<u32> {
    let rows = cluster.processes()?;
    let row = rows.iter().find(|row| row["name"] == WORKER).context("no such worker")?;
    row["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).context("no process id")
}

/// Makes so many pods with these containers and waits until all are ready.
fn many(
    cluster: &Cluster,
    report: &mut Report,
    kind: &str,
    count: usize,
    containers: &serde_json::Value,
) -> anyhow::Result<()> {
    if count == 0 {
        return Ok(());
    }
    block_on(async {
        let client = client(cluster, 0)?;
        let make = {
            let (client, kind, containers) = (client.clone(), kind.to_owned(), containers.clone());
            move |number: usize| {
                let pod = json!({
                    "metadata": {"name": format!("{kind}-{number}"), "namespace": "default", "labels": {"kind": kind, "number": number.to_string()}},
                    "spec": {
                        "nodeSelector": {"kubernetes.io/hostname": WORKER},
                        "terminationGracePeriodSeconds": 0,
                        "containers": containers,
                        "volumes": [{"name": "scratch", "emptyDir": {}}],
                    },
                });
                let client = client.clone();
                async move { client.create(&serde_json::from_value::<Pod>(pod)?).await.map_err(anyhow::Error::from) }
            }
        };
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let selection = Selection { labels: Some(format!("kind={kind}")), ..Selection::default() };
        let cache = Cache::<Pod>::start(client.clone(), selection, stop);
        cache.synced().await;
        // The first one compiles the module, and is no part of what is measured.
        make(0).await?;
        ready(&cache, 1).await?;
        let pid = worker(cluster)?;
        let (before, cpu) = (machine::memory(pid)?.1, machine::processor_time(pid)?);
        let begun = Instant::now();
        let next = Arc::new(AtomicUsize::new(1));
        let mut makers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (make, next) = (make.clone(), next.clone());
            makers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(());
                    }
                    make(number).await?;
                }
            });
        }
        while let Some(made) = makers.join_next().await {
            made??;
        }
        let created = begun.elapsed();
        ready(&cache, count).await?;
        let took = begun.elapsed();
        let cpu = machine::processor_time(pid)?.saturating_sub(cpu);
        // What was only needed to start them is given back meanwhile.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = machine::memory(pid)?.1;
        let each = after.saturating_sub(before) as f64 / (count - 1).max(1) as f64;
        report.add(
            format!("{count} {kind} on one worker"),
            format!(
                "created in {:.1} s, all ready after {:.1} s ({:.1} s of the worker's CPU); {:.0} MiB before, {:.0} MiB after, {each:.1} KiB each",
                created.as_secs_f64(),
                took.as_secs_f64(),
                cpu.as_secs_f64(),
                before as f64 / 1_024.0,
                after as f64 / 1_024.0,
            ),
        );
        if kind == "processes" {
            return Ok(());
        }
        let cpu = machine::processor_time(pid)?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let used = machine::processor_time(pid)?.saturating_sub(cpu).as_secs_f64() / 5.0;
        report.add(format!("the worker with {count} {kind}, idle"), format!("{:.1} % of a core", used * 100.0));
        Ok(())
    })
}

async fn ready(cache: &Cache<Pod>, count: usize) -> anyhow::Result<()> {
    let mut changed = cache.changed();
    let all = async {
        loop {
            let ready = cache.snapshot().values().filter(|pod| startup::is_pod_ready(pod)).count();
            if ready >= count {
                return anyhow::Ok(());
            }
            changed.changed().await?;
            // Counting thousands for each change would be the load.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.with_context(|| format!("not {count} are ready"))?
}

/// The last of them answers its first request.
fn first_request(cluster: &Cluster, report: &mut Report, count: usize) -> anyhow::Result<()> {
    let last = (count - 1).to_string();
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "last", "namespace": "default"},
        "spec": {"type": "NodePort", "selector": {"kind": "functions", "number": last}, "ports": [{"port": 80, "targetPort": "http", "nodePort": NODE_PORT}]},
    }))?;
    block_on(async { Ok(client(cluster, 0)?.create(&service).await?) })?;
    let address = SocketAddr::from((ADDRESS, NODE_PORT)).to_string();
    let deadline = Instant::now() + PATIENCE;
    // Until the worker knows the Service nobody asks the function.
    let took = loop {
        let asked = Instant::now();
        if get(&address, "/").is_ok_and(|answer| answer.status == 200) {
            break asked.elapsed();
        }
        anyhow::ensure!(Instant::now() < deadline, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(20));
    };
    report.add(format!("the first request to number {count}"), format!("{:.1} ms", took.as_secs_f64() * 1_000.0));
    block_on(async {
        let client = client(cluster, 0)?;
        client.delete::<Service>("default", "last", &DeleteOptions::default()).await?;
        Ok(())
    })
}
