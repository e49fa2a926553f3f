//! The simulated servers, their clock, and what is written down about them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shoal_store::limits::History as Kept;
use shoal_store::seal::Keyring;
use shoal_store::simulation::seeded;
use shoal_store::{Capacity, Config, Disk, Member, Store, UnixSeconds, WatchEvent, Work};
use tokio::time::Instant;

use crate::check;
use crate::disk::SimDisk;
use crate::history::{History, Watched};
use crate::net::{Layer, Net};

thread_local! {
    /// How far the clock was set forward, in seconds.
    static AHEAD: Cell<u64> = const { Cell::new(0) };
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The servers' clock.
pub fn now() -> UnixSeconds {
    let since = BEGAN.get().map_or(0, |began| began.elapsed().as_secs());
    UnixSeconds::new(1_000_000 + since + AHEAD.get()).expect("not zero")
}

/// Sets the servers' clock forward.
pub fn jump(seconds: u64) {
    AHEAD.set(AHEAD.get() + seconds);
}

/// A server that is part of the simulation, whether it runs or not.
struct Server {
    name: String,
    disk: SimDisk,
    running: Option<Store>,
    /// Which start is under way; two processes never use one disk.
    starting: Option<u64>,
}

struct Inner {
    random: StdRng,
    servers: BTreeMap<u64, Server>,
    history: History,
    trace: Vec<String>,
    wrong: Option<String>,
}

/// Clones are the same world.
#[derive(Clone)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
    pub net: Net,
    keys: Keyring,
    began: Instant,
}

impl World {
    pub fn new(seed: u64, layer: Layer) -> Self {
        let began = Instant::now();
        BEGAN.set(Some(began));
        AHEAD.set(0);
        let mut random = StdRng::seed_from_u64(seed);
        let net = Net::new(random.random(), layer);
        let inner =
            Inner { random, servers: BTreeMap::new(), history: History::default(), trace: Vec::new(), wrong: None };
        Self { inner: Arc::new(Mutex::new(inner)), net, keys: Keyring::generate().expect("a ring"), began }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A source of chance of its own.
    pub fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.lock().random.random())
    }

    /// Writes down what happens.
    pub fn note(&self, what: impl Display) {
        let at = self.began.elapsed();
        let line = format!("{:>9.4} {what}", at.as_secs_f64());
        tracing::info!("{line}");
        self.lock().trace.push(line);
    }

    /// Something that must never happen.
    pub fn fail(&self, what: impl Display) {
        let what: String = what.to_string().chars().take(400).collect();
        self.note(format_args!("WRONG: {what}"));
        self.lock().wrong.get_or_insert(what);
    }

    pub fn wrong(&self) -> Option<String> {
        self.lock().wrong.clone()
    }

    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    pub fn with_history<T>(&self, work: impl FnOnce(&mut History) -> T) -> T {
        work(&mut self.lock().history)
    }

    /// Makes room for a server, which does not run yet.
    pub fn add(&self, id: u64, name: &str) {
        let mut inner = self.lock();
        let disk = SimDisk::new(inner.random.random());
        inner.servers.insert(id, Server { name: name.to_string(), disk, running: None, starting: None });
    }

    pub fn member(&self, id: u64) -> Member {
        let name = self.lock().servers[&id].name.clone();
        Member { id, name, link_address: id.to_string(), api_address: String::new() }
    }

    pub fn ids(&self) -> Vec<u64> {
        self.lock().servers.keys().copied().collect()
    }

    pub fn running(&self) -> Vec<u64> {
        self.lock().servers.iter().filter(|(_, server)| server.running.is_some()).map(|(id, _)| *id).collect()
    }

    pub fn store(&self, id: u64) -> Option<Store> {
        self.lock().servers.get(&id)?.running.clone()
    }

    pub fn disk(&self, id: u64) -> SimDisk {
        self.lock().servers[&id].disk.clone()
    }

    pub fn config(&self, member: Member, disk: SimDisk) -> Config {
        let capacity = Capacity {
            snapshot_entries: 60,
            segment_bytes: 32 << 10,
            cached_log_bytes: 8 << 10,
            history: Kept { changes: 1_000_000, bytes: 1 << 40 },
            ..Capacity::default()
        };
        Config { capacity, work: Work::Here, now, ..Config::new(Arc::new(disk), self.keys.clone(), member) }
    }

    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// Starts a server. It must start, whatever happened to its disk before.
    pub async fn start(&self, id: u64) {
        let side = {
            let mut inner = self.lock();
            match inner.servers.get_mut(&id) {
                Some(server) if server.running.is_none() && server.starting.is_none() => {
                    let side = self.net.side(id);
                    server.starting = Some(side.life());
                    side
                }
                _ => return,
            }
        };
        let life = side.life();
        let config = self.config(self.member(id), self.disk(id).plugged_in());
        let opened = Store::open(config, Arc::new(side)).await;
        let is_over = {
            let mut inner = self.lock();
            let server = inner.servers.get_mut(&id).filter(|server| server.starting == Some(life));
            server.is_none_or(|server| server.starting.take().is_none())
        };
        if is_over {
            // The power went meanwhile.
            if let Ok(store) = opened {
                store.shutdown().await;
            }
            return;
        }
        match opened {
            Ok(store) => {
                self.note(format_args!("server {id} starts at revision {}", store.view().revision()));
                if let Some(server) = self.lock().servers.get_mut(&id) {
                    server.running = Some(store.clone());
                }
                self.net.attach(id, life, store.clone());
                tokio::spawn(seeded(observe(self.clone(), id, store.clone())));
                tokio::spawn(seeded(lead(self.clone(), id, store.clone())));
                tokio::spawn(seeded(restart_when_failed(self.clone(), id, life, store)));
            }
            Err(error) if error.to_string().contains("injected") => {
                self.note(format_args!("server {id} fails while it starts"));
                self.disk(id).crash();
                self.net.detach(id);
            }
            Err(error) => {
                let files = self.disk(id).plugged_in().list("wal");
                self.fail(format_args!("server {id} cannot be opened: {error}; it has {files:?}"));
            }
        }
    }

    /// The power goes.
    pub fn crash(&self, id: u64) {
        let store = {
            let mut inner = self.lock();
            let Some(server) = inner.servers.get_mut(&id) else { return };
            if server.starting.take().is_some() {
                server.disk.crash();
                self.net.detach(id);
            }
            let Some(store) = server.running.take() else { return };
            server.disk.crash();
            store
        };
        self.net.detach(id);
        self.note(format_args!("server {id} crashes at revision {}", store.view().revision()));
        // What is left of it can neither write nor be heard.
        tokio::spawn(seeded(async move { store.shutdown().await }));
    }

    /// Lets go of all servers. They know the network and it knows them, so none of them would go by itself.
    pub fn end(&self) {
        for id in self.ids() {
            self.forget(id);
        }
    }

    /// The server is no more.
    pub fn forget(&self, id: u64) {
        self.crash(id);
        self.lock().servers.remove(&id);
    }
}

/// Writes down every change, as this server tells it.
async fn observe(world: World, id: u64, store: Store) {
    let mut after = store.view().compacted();
    loop {
        let mut watch = match store.watch("", after) {
            Ok(watch) => watch,
            Err(compacted) => {
                after = compacted.0;
                continue;
            }
        };
        let number = world.with_history(|history| {
            history.watched.push(Watched::new(id, after));
            history.watched.len() - 1
        });
        let ended = loop {
            match watch.next().await {
                Some(Ok(WatchEvent::Changes(changes))) => {
                    for change in changes {
                        let told = world.with_history(|history| check::told(history, number, &change));
                        if let Err(error) = told {
                            world.fail(format_args!("server {id}: {error}"));
                        }
                    }
                }
                Some(Ok(WatchEvent::Progress(revision))) => {
                    world.with_history(|history| history.watched[number].upto_at_least(revision));
                }
                // A snapshot came in between.
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        let upto = world.with_history(|history| history.watched[number].upto);
        after = upto.max(store.view().compacted());
        if ended {
            return;
        }
    }
}

/// Writes down who leads.
async fn lead(world: World, id: u64, store: Store) {
    let mut leadership = store.leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        if now.is_self {
            world.note(format_args!("server {id} leads term {}", now.term));
            world.with_history(|history| history.leaders.insert((now.term, id)));
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// A process whose store has failed ends, and is started again.
fn restart_when_failed(world: World, id: u64, life: u64, store: Store) -> BoxFuture<'static, ()> {
    async move {
        store.failed().await;
        // After a crash it is another one that runs.
        if world.net.life(id) != Some(life) {
            return;
        }
        world.note(format_args!("server {id} fails"));
        world.crash(id);
        tokio::time::sleep(Duration::from_millis(700)).await;
        if world.ids().contains(&id) {
            world.start(id).await;
        }
    }
    .boxed()
}
