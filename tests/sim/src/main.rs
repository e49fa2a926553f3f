//! Deterministic simulation of the store: everything but the network, the disk and the clock is the real thing, one thread does
//! everything in one order, and a seed chooses all that is random. See `run`.

mod check;
mod clients;
mod disk;
mod faults;
mod history;
mod net;
mod world;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use shoal_store::simulation::{seeded, set_seed};
use tokio::runtime::{Builder, RngSeed};

use world::World;

/// How long faults are inflicted, in simulated time.
const FAULTS: Duration = Duration::from_secs(25);

/// How long everything may take to heal, in simulated time.
const HEAL: Duration = Duration::from_secs(60);

/// How many clients there are.
const CLIENTS: usize = 6;

/// The seeds that failed once, with their story; they are run before all others.
const KEPT: &str = include_str!("../seeds.txt");

const USAGE: &str = "usage: run [--seeds COUNT [FIRST]] | --seed SEED | --digest SEED";

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
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u64>().ok();
    match words.as_slice() {
        ["--seed", seed] if number(seed).is_some() => replay(number(seed).unwrap_or_default()),
        ["--digest", seed] if number(seed).is_some() => {
            let outcome = simulate(number(seed).unwrap_or_default());
            println!("{}", outcome.trace.join("\n"));
            ExitCode::SUCCESS
        }
        [] => many(1_000, 1),
        ["--seeds", count] if number(count).is_some() => many(number(count).unwrap_or_default(), 1),
        ["--seeds", count, first] if number(count).is_some() && number(first).is_some() => {
            many(number(count).unwrap_or_default(), number(first).unwrap_or_default())
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn replay(seed: u64) -> ExitCode {
    let outcome = simulate(seed);
    println!("{}", outcome.trace.join("\n"));
    println!("{}", outcome.summary);
    match outcome.wrong {
        None => ExitCode::SUCCESS,
        Some(wrong) => {
            eprintln!("seed {seed}: {wrong}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the kept seeds and `count` more on two threads.
fn many(count: u64, first: u64) -> ExitCode {
    let kept = KEPT.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    let seeds: Vec<u64> = kept.chain(first..first + count).collect();
    let (next, failed) = (AtomicU64::new(0), Mutex::new(BTreeSet::new()));
    let totals = Mutex::new([0; 3]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let outcome = simulate(*seed);
                    if let Some(wrong) = outcome.wrong {
                        eprintln!("seed {seed}: {wrong}\n  tests/sim/run --seed {seed} shows what led to it");
                        failed.lock().expect("a lock").insert(*seed);
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
    println!("{} passed, {} failed", seeds.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Outcome {
    wrong: Option<String>,
    trace: Vec<String>,
    summary: String,
    counts: [usize; 3],
}

/// One simulation from its beginning to its end.
fn simulate(seed: u64) -> Outcome {
    set_seed(seed);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime");
    runtime.block_on(seeded(async move {
        let world = World::new(seed);
        if let Err(error) = live(&world).await {
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
    heal(world).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.send_replace(true);
    for client in clients {
        client.await.map_err(|error| format!("a client: {error}"))?;
    }
    let stores = heal(world).await?;
    // Observers are told of everything before they are asked, and nothing goes by itself any more.
    world::jump(100);
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.with_history(|history| {
        check::history(history)?;
        check::agree(&stores, history)
    })?;
    check::restores(world, stores[0].1.image()).await
}

/// Waits until all members answer, and have the same; answers them.
async fn heal(world: &World) -> Result<Vec<(u64, shoal_store::Store)>, String> {
    let healed = async {
        loop {
            faults::start_all(world).await;
            if let Some(stores) = healthy(world).await {
                return stores;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    if let Some(wrong) = world.wrong() {
        return Err(wrong);
    }
    tokio::time::timeout(HEAL, healed).await.map_err(|_| "the servers do not heal".to_string())
}

async fn healthy(world: &World) -> Option<Vec<(u64, shoal_store::Store)>> {
    let members = faults::members(world).await?;
    // What was removed without anybody's having been told so is over now.
    for gone in world.ids().into_iter().filter(|id| !members.contains(id)) {
        world.forget(gone);
    }
    let mut stores = Vec::new();
    for id in members {
        let store = world.store(id)?;
        tokio::time::timeout(Duration::from_secs(2), store.read_barrier()).await.ok()?.ok()?;
        stores.push((id, store));
    }
    Some(stores)
}
