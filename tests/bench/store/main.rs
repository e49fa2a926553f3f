//! The store beside etcd: three processes each on loopback, durable on a majority, the same load from this one.
//!
//! `cargo bench -p shoal-controlplane --bench store [-- WORD ...]`; the comparison runs when `etcd` is in PATH. README.md in the folder
//! above says what each line means and what was reached.

mod cluster;
mod etcd;
#[path = "../load.rs"]
mod load;
#[path = "../machine.rs"]
mod machine;
mod node;
#[path = "../report.rs"]
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use cluster::{Client, Cluster};
use etcd::EtcdClient;
use load::Load;
use report::{Report, Times};

/// How long each load lasts.
const DURATION: Duration = Duration::from_secs(4);

/// How often the store and etcd take turns, and how long each turn is: machines are noisy. Each server comes first as often as the others,
/// since one client is answered sooner by the one that leads.
const TURNS: usize = 6;
const TURN: Duration = Duration::from_secs(2);

/// What is compared with etcd, and with how many clients.
const COMPARED: [(&str, usize); 7] =
    [(WRITES, 1), (WRITES, 16), (WRITES, 64), (WRITES, 256), (READS, 1), (READS, 64), (READS, 256)];
const WRITES: &str = "writes";
const READS: &str = "linearizable reads";
const LOCAL_READS: &str = "not-older reads, 64 clients";

/// The size of a value, in bytes.
const VALUE: usize = 512;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|word| word == node::WORD) {
        return node::main(&arguments[1..]);
    }
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(run(&arguments, &mut report));
    report.print();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String], report: &mut Report) -> anyhow::Result<()> {
    let is_wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let compared = COMPARED.map(|(what, clients)| (format!("{what}, {clients} clients"), clients));
    let is_local = is_wanted(LOCAL_READS);
    if is_local || compared.iter().any(|(what, _)| is_wanted(what)) {
        let cluster = Cluster::start(3).await?;
        let etcd = etcd::Etcd::start().await?;
        if etcd.is_none() {
            report.add("etcd", "is not in PATH: apt-get install etcd-server");
        }
        for (what, clients) in compared.iter().filter(|(what, _)| is_wanted(what)) {
            compare(report, what, *clients, &cluster, etcd.as_ref()).await?;
        }
        if is_local {
            local_reads(report, &cluster).await?;
        }
    }
    if is_wanted("failover") {
        failover(report).await?;
    }
    if is_wanted("join") {
        join(report).await?;
    }
    Ok(())
}

/// The store and etcd in turns, and the ratio over all of them.
async fn compare(
    report: &mut Report,
    what: &str,
    clients: usize,
    cluster: &Cluster,
    etcd: Option<&etcd::Etcd>,
) -> anyhow::Result<()> {
    let is_write = what.starts_with(WRITES);
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for round in 0..TURNS {
        let mut connections = Vec::new();
        for number in 0..clients {
            connections.push(cluster.client(number + round).await?);
        }
        own.push(turn(connections, is_write).await?);
        let Some(etcd) = etcd else { continue };
        let mut connections = Vec::new();
        for number in 0..clients {
            connections.push(etcd.client(number + round).await?);
        }
        other.push(turn(connections, is_write).await?);
    }
    let sum = |turns: &[Load]| turns.iter().map(|turn| turn.rate).sum::<f64>();
    let ratio = sum(&own) / sum(&other);
    report.add(what, middle(own));
    if etcd.is_some() {
        report.add("  etcd", format!("{}: {ratio:.2} x", middle(other)));
    }
    Ok(())
}

/// What one of them does in a turn, each client with keys of its own.
async fn turn<C: Asked>(clients: Vec<C>, is_write: bool) -> anyhow::Result<Load> {
    let clients = clients.into_iter().map(|client| (client, 0u64)).collect();
    load::drive(clients, TURN, Duration::ZERO, move |(mut client, count), number| async move {
        let key = format!("/bench/{number}/{}", count % 1_000);
        if is_write {
            client.put(&key, &[b'x'; VALUE]).await?;
        } else {
            client.read(&key).await?;
        }
        Ok((client, count + 1))
    })
    .await
}

/// The turn in the middle, the slowest and the quickest.
fn middle(mut turns: Vec<Load>) -> String {
    turns.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let Load { rate, times } = &turns[turns.len() / 2];
    let [least, most] = [0, turns.len() - 1].map(|at| turns[at].rate);
    format!("{rate:.0} a second ({least:.0} to {most:.0}), {}", times.text())
}

/// A connection to either.
trait Asked: Send + 'static {
    fn put(&mut self, key: &str, value: &[u8]) -> impl Future<Output = anyhow::Result<()>> + Send;
    fn read(&mut self, key: &str) -> impl Future<Output = anyhow::Result<()>> + Send;
}

impl Asked for Client {
    async fn put(&mut self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        Client::put(self, key, value).await.map(drop)
    }

    async fn read(&mut self, key: &str) -> anyhow::Result<()> {
        Client::read(self, key).await.map(drop)
    }
}

impl Asked for EtcdClient {
    async fn put(&mut self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        EtcdClient::put(self, key, value).await
    }

    async fn read(&mut self, key: &str) -> anyhow::Result<()> {
        EtcdClient::read(self, key).await
    }
}

/// Not older than what the client has seen, from any server, without asking the leader.
async fn local_reads(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let mut connections = Vec::new();
    for number in 0..64 {
        connections.push(cluster.client(number).await?);
    }
    let load = load::drive(connections, DURATION, Duration::ZERO, |mut client, number| async move {
        client.read_local(&format!("/bench/{number}/1")).await?;
        Ok(client)
    })
    .await?;
    report.add(LOCAL_READS, format!("{:.0} a second, {}", load.rate, load.times.text()));
    Ok(())
}

/// From killing the leader to the next acknowledged write, ten times.
async fn failover(report: &mut Report) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let mut times = Vec::new();
    for round in 0..10 {
        let leader = cluster.leader().await?;
        let survivor = (0..3).find(|number| *number != leader).context("two are left")?;
        let mut client = cluster.client(survivor).await?;
        client.put("/before", &[b'x'; VALUE]).await?;
        let killed = Instant::now();
        cluster.kill(leader)?;
        while client.put(&format!("/after/{round}"), &[b'x'; VALUE]).await.is_err() {
            client = cluster.client(survivor).await?;
        }
        times.push(killed.elapsed().as_secs_f64() * 1_000.0);
        cluster.restart(leader).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let times = Times::new(times);
    let (median, worst) = (times.quantile(0.5), times.quantile(1.0));
    report.add("leader killed to the next write", format!("median {median:.0} ms, worst of ten {worst:.0} ms"));
    Ok(())
}

/// A fourth server joins three that have 100,000 objects of 1 KB and are written to.
async fn join(report: &mut Report) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let empty = cluster.memory()?;
    let mut loaders = tokio::task::JoinSet::new();
    for number in 0..64 {
        let mut client = cluster.client(number).await?;
        loaders.spawn(async move {
            for key in (number..100_000).step_by(64) {
                client.put(&format!("/objects/{key:06}"), &[b'x'; 1_000]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(loaded) = loaders.join_next().await {
        loaded??;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let full = cluster.memory()?;
    // Keys, values.
    let bytes = 100_000.0 * 1_015.0;
    let factor = full.iter().map(|memory| *memory as f64 * 1024.0 / bytes).fold(0.0, f64::max);
    let rest: Vec<String> =
        full.iter().zip(&empty).map(|(full, empty)| format!("{} ({})", full >> 10, empty >> 10)).collect();
    report.add(
        "memory with 100,000 objects of 1 KB",
        format!("{} MiB, empty in brackets: {factor:.2} x their bytes", rest.join(", ")),
    );

    let before = cluster.processor_time()?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let after = cluster.processor_time()?;
    let idle = before.iter().zip(&after).map(|(before, after)| (*after - *before).as_secs_f64() / 8.0 * 100.0);
    let idle: Vec<String> = idle.map(|share| format!("{share:.2} %")).collect();
    report.add("processor time of an idle server", idle.join(", "));

    let alone = writes(&cluster, Duration::from_secs(3)).await?;
    let writing = {
        let clients = clients(&cluster, 16).await?;
        tokio::spawn(load::drive(clients, Duration::from_secs(3), Duration::ZERO, put_some))
    };
    let begun = Instant::now();
    cluster.add().await?;
    let took = begun.elapsed();
    let during = writing.await??.rate;
    report.add("a fourth server joins them", format!("{:.2} s, until it votes and has all", took.as_secs_f64()));
    report.add(
        "writes meanwhile, 16 clients",
        format!("{during:.0} a second, {:.2} x of {alone:.0} before", during / alone),
    );
    Ok(())
}

async fn put_some(mut client: Client, number: usize) -> anyhow::Result<Client> {
    client.put(&format!("/meanwhile/{number}"), &[b'x'; VALUE]).await?;
    Ok(client)
}

async fn clients(cluster: &Cluster, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(cluster.client(number % 3).await?);
    }
    Ok(clients)
}

async fn writes(cluster: &Cluster, duration: Duration) -> anyhow::Result<f64> {
    Ok(load::drive(clients(cluster, 16).await?, duration, Duration::ZERO, put_some).await?.rate)
}
