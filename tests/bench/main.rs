//! How fast, and how much: a cluster of real processes under load, as a table.
//!
//! `cargo bench -p shoal --bench cluster [-- WORD ...]` runs all parts, or those whose name holds a word. README.md in this
//! folder says what each line means and what was reached.

mod density;
mod functions;
mod idle;
mod load;
mod machine;
mod modules;
mod neighbours;
mod report;
mod startup;
mod writes;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use shoal_client::{Client, Kubeconfig, TlsTransport};
use shoal_tests::{Cluster, Tools};

use report::Report;

/// The program under test, built with this benchmark.
const SHOAL: &str = env!("CARGO_BIN_EXE_shoal");

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut report = Report::default();
    let outcome = run(&words, &mut report);
    report.print();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String], report: &mut Report) -> anyhow::Result<()> {
    let is_wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let small = ["idle", "functions", "neighbours"].map(is_wanted);
    if small.contains(&true) {
        let cluster = start(1, 1)?;
        if small[0] {
            idle::measure(&cluster, report)?;
        }
        if small[1] {
            functions::measure(&cluster, report)?;
        }
        if small[2] {
            neighbours::measure(&cluster, report)?;
        }
    }
    if is_wanted("density") {
        density::measure(&start(1, 1)?, report)?;
    }
    if is_wanted("modules") {
        modules::measure(&start(1, 1)?, report)?;
    }
    let large = ["ready", "writes"].map(is_wanted);
    if large.contains(&true) {
        let cluster = start(3, 2)?;
        if large[0] {
            startup::measure(&cluster, report)?;
        }
        if large[1] {
            writes::measure(&cluster, report)?;
        }
    }
    Ok(())
}

fn start(servers: u16, workers: u16) -> anyhow::Result<Cluster> {
    eprintln!("starting {servers} + {workers} ...");
    Cluster::start(Path::new(SHOAL), &Tools::none(), servers, workers)
}

/// A connection of its own to the cluster's API, to its `number`-th server first.
fn client(cluster: &Cluster, number: usize) -> anyhow::Result<Client> {
    let mut config = Kubeconfig::load(&cluster.data().join("admin.kubeconfig"))?;
    let servers = cluster.names("server")?;
    config.servers = servers.iter().map(|name| cluster.api_url(name)).collect::<anyhow::Result<_>>()?;
    let count = config.servers.len();
    config.servers.rotate_left(number % count);
    let transport = TlsTransport::new(&config).context("the kubeconfig cannot be used")?;
    Ok(Client::new(std::sync::Arc::new(transport)))
}

/// Runs `work` on as many threads as there are cores.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
