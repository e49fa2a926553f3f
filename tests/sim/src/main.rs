//! Deterministic simulation of the store: everything but the network, the disk and the clock is the real thing, one thread does
//! everything in one order, and a seed chooses all that is random. In its first layer the servers talk over streams in memory; in its
//! second over the real link, with only the datagrams simulated. See `run`.

mod check;
mod clients;
mod datagrams;
mod disk;
mod faults;
mod history;
mod link;
mod net;
mod streams;
mod world;

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt;
use shoal_store::simulation::{seeded, set_seed};
use tokio::runtime::{Builder, RngSeed};

use net::Layer;
use world::World;

/// How long faults are inflicted, in simulated time.
const FAULTS: Duration = Duration::from_secs(25);

/// How long all of it may take, in simulated time.
const ALL: Duration = Duration::from_secs(600);

/// How many clients there are.
const CLIENTS: usize = 6;

/// The seeds that failed once, with their story; they are run before all others.
const KEPT: &str = include_str!("../seeds.txt");

/// How many seeds are run of the first layer, and of the second, which takes longer.
const SEEDS: (u64, u64) = (1_000, 200);

const USAGE: &str = "usage: run [--quic] [--seeds COUNT [FIRST] | --seed SEED | --digest SEED]";

/// One simulation: what the servers talk over, and the seed of all the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    layer: Layer,
    seed: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = if self.layer == Layer::Quic { "--quic " } else { "" };
        write!(formatter, "{layer}--seed {}", self.seed)
    }
}

fn main() -> ExitCode {
    if std::env::var_os("SHOAL_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_env("SHOAL_LOG");
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let layer = if words.first() == Some(&"--quic") { Layer::Quic } else { Layer::Streams };
    if layer == Layer::Quic {
        words.remove(0);
    }
    let numbers: Option<Vec<u64>> = words.iter().skip(1).map(|word| word.parse().ok()).collect();
    match (words.first().copied(), numbers.as_deref()) {
        (Some("--seed"), Some(&[seed])) => replay(Case { layer, seed }),
        (Some("--digest"), Some(&[seed])) => {
            println!("{}", simulate(Case { layer, seed }).trace.join("\n"));
            ExitCode::SUCCESS
        }
        (Some("--seeds"), Some(&[count])) => many(&cases(layer, 1, count)),
        (Some("--seeds"), Some(&[count, first])) => many(&cases(layer, first, count)),
        (None, _) if layer == Layer::Streams => {
            many(&[kept(), cases(Layer::Streams, 1, SEEDS.0), cases(Layer::Quic, 1, SEEDS.1)].concat())
        }
        (None, _) => many(&cases(layer, 1, SEEDS.1)),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn cases(layer: Layer, first: u64, count: u64) -> Vec<Case> {
    (first..first.saturating_add(count)).map(|seed| Case { layer, seed }).collect()
}

/// Those that failed once: a seed a line, after `quic` for the second layer.
fn kept() -> Vec<Case> {
    let case = |line: &str| {
        let mut words = line.split_whitespace().peekable();
        let layer = words.next_if_eq(&"quic").map_or(Layer::Streams, |_| Layer::Quic);
        Some(Case { layer, seed: words.next()?.parse().ok()? })
    };
    KEPT.lines().filter_map(case).collect()
}

fn replay(case: Case) -> ExitCode {
    let outcome = simulate(case);
    println!("{}", outcome.trace.join("\n"));
    println!("{}", outcome.summary);
    match outcome.wrong {
        None => ExitCode::SUCCESS,
        Some(wrong) => {
            eprintln!("{case}: {wrong}");
            ExitCode::FAILURE
        }
    }
}

/// Runs them on two threads.
fn many(cases: &[Case]) -> ExitCode {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    let totals = Mutex::new([0; 3]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = simulate(*case);
                    if let Some(wrong) = outcome.wrong {
                        eprintln!("{wrong}\n  tests/sim/run {case} shows what led to it");
                        failed.lock().expect("a lock").insert(*case);
                    }
                    let mut totals = totals.lock().expect("a lock");
                    for (total, count) in totals.iter_mut().zip(outcome.counts) {
                        *total += count;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("a lock");
    let [writes, reads, lists] = totals.into_inner().expect("a lock");
    println!("{writes} acknowledged writes, {reads} reads and {lists} lists were checked");
    println!("{} passed, {} failed", cases.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Outcome {
    wrong: Option<String>,
    trace: Vec<String>,
    summary: String,
    counts: [usize; 3],
}

/// One simulation from its beginning to its end.
fn simulate(Case { layer, seed }: Case) -> Outcome {
    set_seed(seed);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime");
    runtime.block_on(seeded(async move {
        let world = World::new(seed, layer);
        let lived = tokio::time::timeout(ALL, live(&world)).await;
        if let Err(error) = lived.unwrap_or_else(|_| Err("it does not come to its end".to_string())) {
            world.fail(error);
        }
        let (summary, counts) = world.with_history(|history| {
            let acknowledged = |written: &&history::Written| matches!(written.fate, history::Fate::Acknowledged(_));
            let counts = [history.writes.iter().filter(acknowledged).count(), history.reads.len(), history.lists.len()];
            let terms = history.leaders.len();
            (format!("{} revisions, {terms} terms, {counts:?}", history.changes.len()), counts)
        });
        let outcome = Outcome { wrong: world.wrong(), trace: world.trace(), summary, counts };
        world.end();
        outcome
    }))
}

async fn live(world: &World) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| format!("the beginning: {error}");
    world.add(1, "server-1");
    world.start(1).await;
    let first = world.store(1).ok_or("the first server does not run")?;
    first.initialize().await.map_err(|error| text(&error))?;
    let servers = world.random().random_range(3..=5u64);
    for _ in 2..=servers {
        let id = first.allocate_member_id().await.map_err(|error| text(&error))?;
        world.add(id, &format!("server-{id}"));
        world.start(id).await;
        first.add_member(world.member(id)).await.map_err(|error| text(&error))?;
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| tokio::spawn(seeded(clients::run(world.clone(), number, stopped.clone())))).collect();
    faults::inflict(world, FAULTS).await;
    // Some writes while nothing is wrong.
    world.note("everything heals");
    world.net.heal();
    for id in world.ids() {
        world.disk(id).set_slow(Duration::ZERO);
    }
    check::heals(world).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.send_replace(true);
    for client in clients {
        client.await.map_err(|error| format!("a client: {error}"))?;
    }
    let stores = check::heals(world).await?;
    // Observers are told of everything before they are asked, and nothing goes by itself any more.
    world::jump(100);
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.with_history(|history| {
        check::history(history)?;
        check::agree(&stores, history)
    })?;
    check::restores(world, stores[0].1.image()).await
}
