//! The network in memory: streams that are delayed, stall while their way is cut, and break when that lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shoal_store::simulation::seeded;
use shoal_store::{Member, PeerIo, PeerStream, Peers, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::Instant;

/// How long a silent connection lives, as with the real link.
const IDLE: Duration = Duration::from_secs(3);

/// How long a stream is waited for, as with the real link.
const OPEN: Duration = Duration::from_millis(500);

/// How often a stalled stream looks whether its way is free again.
const LOOK: Duration = Duration::from_millis(20);

/// What is kept of a stream to be told again.
const TOLD_AGAIN: usize = 64 << 10;

struct Inner {
    random: StdRng,
    stores: BTreeMap<u64, (u64, Store)>,
    /// The present life of every server that runs or starts.
    lives: BTreeMap<u64, u64>,
    last_life: u64,
    /// Ways that are cut: from, to.
    cut: BTreeSet<(u64, u64)>,
    slow: BTreeMap<(u64, u64), Duration>,
    duplicates: bool,
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
}

/// One server's end.
pub struct Side {
    net: Net,
    own: u64,
    life: u64,
}

/// A way through the network, between two lives of two servers.
#[derive(Clone, Copy)]
struct Way {
    from: (u64, u64),
    to: (u64, u64),
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed),
            stores: BTreeMap::new(),
            lives: BTreeMap::new(),
            last_life: 0,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            duplicates: false,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An end for a server that starts now.
    pub fn side(&self, own: u64) -> Side {
        let mut inner = self.lock();
        inner.last_life += 1;
        let life = inner.last_life;
        inner.lives.insert(own, life);
        Side { net: self.clone(), own, life }
    }

    /// The server at `side` serves from now on.
    pub fn attach(&self, id: u64, life: u64, store: Store) {
        self.lock().stores.insert(id, (life, store));
    }

    /// The server is gone, and with it every stream to it and from it.
    pub fn detach(&self, id: u64) {
        let mut inner = self.lock();
        inner.stores.remove(&id);
        inner.lives.remove(&id);
    }

    /// The present life of a server that runs or starts.
    pub fn life(&self, id: u64) -> Option<u64> {
        self.lock().lives.get(&id).copied()
    }

    pub fn cut(&self, from: u64, to: u64) {
        self.lock().cut.insert((from, to));
    }

    pub fn slow_down(&self, from: u64, to: u64, by: Duration) {
        self.lock().slow.insert((from, to), by);
    }

    pub fn set_duplicates(&self, duplicates: bool) {
        self.lock().duplicates = duplicates;
    }

    /// All ways are free and fast.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.cut.clear();
        inner.slow.clear();
        inner.duplicates = false;
    }

    /// Whether both ends still live.
    fn is_alive(&self, way: Way) -> bool {
        let inner = self.lock();
        [way.from, way.to].iter().all(|(id, life)| inner.lives.get(id) == Some(life))
    }

    fn is_cut(&self, way: Way) -> bool {
        self.lock().cut.contains(&(way.from.0, way.to.0))
    }

    fn delay(&self, way: Way) -> Duration {
        let mut inner = self.lock();
        let slow = inner.slow.get(&(way.from.0, way.to.0)).copied().unwrap_or_default();
        // Now and then something is lost and sent again.
        let lost = if inner.random.random_ratio(1, 100) { 30_000 } else { 0 };
        Duration::from_micros(inner.random.random_range(100..1_500) + lost) + slow
    }

    /// Carries bytes one way; answers those that went first.
    async fn carry(self, way: Way, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) -> Vec<u8> {
        let mut told = Vec::new();
        let mut bytes = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            tokio::time::sleep(self.delay(way)).await;
            let since = Instant::now();
            while self.is_cut(way) && self.is_alive(way) {
                if since.elapsed() > IDLE {
                    return told;
                }
                tokio::time::sleep(LOOK).await;
            }
            if !self.is_alive(way) || to.write_all(&bytes[..length]).await.is_err() {
                return told;
            }
            let room = TOLD_AGAIN.saturating_sub(told.len());
            told.extend_from_slice(&bytes[..length.min(room)]);
        }
        told
    }

    fn connect(&self, way: Way, kind: PeerStream, store: &Store) -> Box<dyn PeerIo> {
        let (here, near) = tokio::io::duplex(256 << 10);
        let (far, there) = tokio::io::duplex(256 << 10);
        let (net, serving) = (self.clone(), store.clone());
        tokio::spawn(seeded(async move { serving.serve_peer(kind, Box::new(there)).await }));
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        let back = Way { from: way.to, to: way.from };
        tokio::spawn(async move {
            // When one way ends, so does the other: a stream is whole or broken.
            let (there, back) =
                (net.clone().carry(way, near_read, far_write), net.clone().carry(back, far_read, near_write));
            tokio::pin!(there, back);
            tokio::select! {
                biased;
                told = &mut there => {
                    // What was asked is answered before the stream ends.
                    let _ = tokio::time::timeout(IDLE, back).await;
                    net.tell_again(way, kind, told).await;
                }
                _ = &mut back => {}
            }
        });
        Box::new(here)
    }

    /// What Raft was told may reach it once more, later, though QUIC never does so: it must not matter.
    async fn tell_again(&self, way: Way, kind: PeerStream, told: Vec<u8>) {
        let store = {
            let mut inner = self.lock();
            if kind == PeerStream::Forward || !inner.duplicates || !inner.random.random_ratio(1, 4) {
                return;
            }
            inner.stores.get(&way.to.0).filter(|(life, _)| *life == way.to.1).map(|(_, store)| store.clone())
        };
        let Some(store) = store else { return };
        tokio::time::sleep(self.delay(way) * 20).await;
        let (mut here, there) = tokio::io::duplex(TOLD_AGAIN * 2);
        tokio::spawn(seeded(async move { store.serve_peer(kind, Box::new(there)).await }));
        let _ = here.write_all(&told).await;
        let _ = here.shutdown().await;
        let mut answers = Vec::new();
        let _ = tokio::time::timeout(IDLE, here.read_to_end(&mut answers)).await;
    }
}

impl Side {
    pub fn life(&self) -> u64 {
        self.life
    }
}

impl Peers for Side {
    fn open(&self, to: &Member, kind: PeerStream) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        let (net, own, to) = (self.net.clone(), (self.own, self.life), to.id);
        async move {
            let found = net.lock().stores.get(&to).cloned();
            let Some((life, store)) = found else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let way = Way { from: own, to: (to, life) };
            let back = Way { from: way.to, to: way.from };
            tokio::time::sleep(net.delay(way)).await;
            if net.is_cut(way) || net.is_cut(back) {
                tokio::time::sleep(OPEN).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !net.is_alive(way) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Ok(net.connect(way, kind, &store))
        }
        .boxed()
    }
}
