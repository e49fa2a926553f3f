//! Three real servers under load, killed, frozen and cut off at random, and then everything that was promised is looked for.
//!
//! `cargo test --release -p shoal --test torture` takes SHOAL_TORTURE_SECONDS (20) and prints the seed of its faults;
//! SHOAL_TORTURE_SEED makes the same faults again, though not at the same instants: the processes are real.

mod check;
mod faults;
mod load;
mod relay;
mod watcher;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use shoal_client::{Client, Kubeconfig, TlsTransport};
use shoal_tests::{Cluster, Tools, eventually};

use load::History;
use relay::Ways;
use watcher::Watcher;

/// How many servers, and how many clients write.
const SERVERS: usize = 3;
const WRITERS: usize = 8;

/// How long a server may take to join.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::print_stdout, reason = "a test runner talks to the person who runs it")]
fn main() -> ExitCode {
    // `cargo test` asks every binary for its tests.
    if std::env::args().any(|argument| argument == "--list") {
        println!("nothing_acknowledged_is_lost: test");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(summary) => {
            println!("test nothing_acknowledged_is_lost ... ok\n  {summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("test nothing_acknowledged_is_lost ... FAILED\n{error:?}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a test runner talks to the person who runs it")]
fn run() -> anyhow::Result<String> {
    let seconds = number("SHOAL_TORTURE_SECONDS")?.unwrap_or(20);
    let seed = number("SHOAL_TORTURE_SEED")?.unwrap_or_else(rand::random);
    println!("torture: {seconds} s, SHOAL_TORTURE_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cluster = Cluster::empty(Path::new(env!("CARGO_BIN_EXE_shoal")), &Tools::none(), SERVERS as u16)?;
    let ways = Ways::default();
    runtime.block_on(relay::run(SERVERS, cluster.first_port(), &ways))?;
    let outcome = start(&cluster)
        .and_then(|()| torture(&cluster, &clients(&cluster)?, &runtime, &ways, Duration::from_secs(seconds), seed));
    outcome.with_context(|| cluster.logs(12))
}

/// Starts the servers, which find each other through the relays.
fn start(cluster: &Cluster) -> anyhow::Result<()> {
    let mut join = Vec::new();
    for number in 0..SERVERS {
        let (inside, outside) = relay::addresses(number, cluster.first_port());
        let (name, inside, host) = (format!("server-{}", number + 1), inside.to_string(), outside.ip().to_string());
        let arguments = ["--link-address", &inside, "--advertise-host", &host];
        let join_words: Vec<&str> = join.iter().map(String::as_str).collect();
        cluster.add_server(&name, &outside.to_string(), &[&arguments[..], &join_words[..]].concat())?;
        let folder = cluster.data().join(&name);
        let kubeconfig = folder.join("admin.kubeconfig");
        let kubeconfig = kubeconfig.to_str().context("a folder whose name is no text")?;
        eventually(&format!("{name} votes"), PATIENCE, || {
            let listed = cluster.run(&["member", "list", "--kubeconfig", kubeconfig], &[])?;
            let votes = |row: &str| row.contains(&name) && row.contains(" reachable ");
            anyhow::ensure!(listed.lines().any(votes), "{listed}");
            Ok(())
        })?;
        if number == 0 {
            let token = cluster.run(&["token", "create", "--kubeconfig", kubeconfig, "--role", "server"], &[])?;
            join = ["--join", &outside.to_string(), "--token", token.trim()].map(str::to_string).to_vec();
        }
    }
    Ok(())
}

fn torture(
    cluster: &Cluster,
    clients: &[Client],
    runtime: &tokio::runtime::Runtime,
    ways: &Ways,
    duration: Duration,
    seed: u64,
) -> anyhow::Result<String> {
    let start = runtime.block_on(check::listed(&clients[0]))?.revision;
    let watchers: Vec<Watcher> = clients.iter().map(|client| Watcher::start(runtime, client.clone(), start)).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| runtime.spawn(load::write(number, clients.to_vec(), Instant::now() + duration)))
        .collect();
    let faults = faults::inflict(cluster, ways, duration, seed)?;

    runtime.block_on(async {
        let mut histories = Vec::new();
        for writer in writers {
            histories.push(writer.await?);
        }
        for client in clients {
            check::healed(client).await?;
        }
        let last = load::last(&clients[0]).await?;
        let mut lists = Vec::new();
        for client in clients {
            lists.push(check::listed(client).await?);
        }
        check::servers_agree(&lists)?;
        check::acknowledged_writes_survive(&histories, &lists[0])?;
        check::nothing_comes_from_nowhere(&histories, &lists[0])?;
        check::revisions_grow(&histories)?;
        check::reads_are_fresh(&histories)?;
        for watcher in watchers {
            check::a_watch_misses_nothing(watcher.finish(last).await?, &lists[0])?;
        }
        let acknowledged: usize = histories.iter().map(History::acknowledged).sum();
        let unknown: usize = histories.iter().map(History::unknown).sum();
        anyhow::ensure!(acknowledged > 100, "only {acknowledged} writes were acknowledged: this run shows nothing");
        Ok(format!("{faults} faults, {acknowledged} writes acknowledged and all found, {unknown} of unknown outcome"))
    })
}

/// A client of each server, which asks no other.
fn clients(cluster: &Cluster) -> anyhow::Result<Vec<Client>> {
    let folders = cluster.names("server")?.into_iter().map(|name| cluster.data().join(name));
    folders
        .map(|folder| {
            let config = Kubeconfig::load(&folder.join("admin.kubeconfig"))?;
            Ok(Client::new(std::sync::Arc::new(TlsTransport::new(&config)?)))
        })
        .collect()
}

fn number(variable: &str) -> anyhow::Result<Option<u64>> {
    let Some(text) = std::env::var_os(variable) else { return Ok(None) };
    let text = text.to_string_lossy();
    text.parse().map(Some).with_context(|| format!("{variable}={text} is no number"))
}
