//! The network: who lives, which ways are cut or slow. What goes over it is streams in memory, or datagrams under real QUIC.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shoal_store::{Member, PeerIo, PeerStream, Peers, Store};

use crate::datagrams::Inbox;
use crate::link::Link;
use crate::streams;

/// How long a stream is waited for, as with the real link.
pub const OPEN: Duration = Duration::from_millis(500);

/// What the servers talk over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Streams in memory, which are delayed, stall while their way is cut, and break when that lasts.
    Streams,
    /// The real link with real QUIC, over datagrams that are delayed, lost, doubled and put out of order.
    Quic,
}

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
    /// Where the datagrams for every server that is plugged in arrive.
    inboxes: BTreeMap<u64, ((u64, u64), Inbox)>,
    links: BTreeMap<u64, Link>,
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    layer: Layer,
}

/// One server's end.
pub struct Side {
    net: Net,
    own: u64,
    life: u64,
    link: Option<Link>,
}

/// A way through the network, between two lives of two servers.
#[derive(Clone, Copy)]
pub struct Way {
    pub from: (u64, u64),
    pub to: (u64, u64),
}

impl Net {
    pub fn new(seed: u64, layer: Layer) -> Self {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed),
            stores: BTreeMap::new(),
            lives: BTreeMap::new(),
            last_life: 0,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            duplicates: false,
            inboxes: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), layer }
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
        drop(inner);
        let link = (self.layer == Layer::Quic).then(|| Link::new(self, own, life));
        if let Some(link) = &link {
            self.lock().links.insert(own, link.clone());
        }
        Side { net: self.clone(), own, life, link }
    }

    /// Datagrams for the server `own` arrive in `inbox` from now on.
    pub fn plug_in(&self, own: u64, life: u64, inbox: Inbox) {
        self.lock().inboxes.insert(own, ((own, life), inbox));
    }

    /// Where datagrams for the server `to` arrive.
    pub fn inbox(&self, to: u64) -> Option<((u64, u64), Inbox)> {
        self.lock().inboxes.get(&to).cloned()
    }

    /// The store of a server that serves, and its life.
    pub fn serving(&self, id: u64) -> Option<(u64, Store)> {
        self.lock().stores.get(&id).cloned()
    }

    /// A source of chance of its own.
    pub fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.lock().random.random())
    }

    /// Once in `times`, when there is a lot of telling twice.
    pub fn doubles(&self, times: u32) -> bool {
        let mut inner = self.lock();
        inner.duplicates && inner.random.random_ratio(1, times)
    }

    /// Once in `times`.
    pub fn loses(&self, times: u32) -> bool {
        self.lock().random.random_ratio(1, times)
    }

    /// The server at `side` serves from now on.
    pub fn attach(&self, id: u64, life: u64, store: Store) {
        let mut inner = self.lock();
        if let Some(link) = inner.links.get(&id) {
            link.serve(store.clone());
        }
        inner.stores.insert(id, (life, store));
    }

    /// The server is gone, and with it every stream to it and from it.
    pub fn detach(&self, id: u64) {
        let mut inner = self.lock();
        inner.stores.remove(&id);
        inner.lives.remove(&id);
        inner.inboxes.remove(&id);
        inner.links.remove(&id);
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
    pub fn is_alive(&self, way: Way) -> bool {
        let inner = self.lock();
        [way.from, way.to].iter().all(|(id, life)| inner.lives.get(id) == Some(life))
    }

    pub fn is_cut(&self, way: Way) -> bool {
        self.lock().cut.contains(&(way.from.0, way.to.0))
    }

    /// How long something takes this time.
    pub fn delay(&self, way: Way) -> Duration {
        let mut inner = self.lock();
        let slow = inner.slow.get(&(way.from.0, way.to.0)).copied().unwrap_or_default();
        Duration::from_micros(inner.random.random_range(100..1_500)) + slow
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
        if let Some(link) = &self.link {
            return link.open(to, kind);
        }
        async move {
            let Some((life, store)) = net.serving(to) else {
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
            Ok(streams::connect(&net, way, kind, &store))
        }
        .boxed()
    }
}
