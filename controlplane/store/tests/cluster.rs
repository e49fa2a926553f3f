//! Stores in one process over in-memory streams: what clients are promised when servers stop, are cut off and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shoal_store::{
    CommitError, Config, Member, PeerIo, PeerStream, Peers, ReadError, Revision, Store, Timing, Transaction, WatchEvent,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The servers that can be reached, and the pairs that cannot reach one another.
#[derive(Default)]
struct Net {
    stores: Mutex<BTreeMap<u64, Store>>,
    cut: Mutex<BTreeSet<u64>>,
}

struct Side {
    net: Weak<Net>,
    own: u64,
}

impl Peers for Side {
    fn open(&self, to: &Member, kind: PeerStream) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        let (net, own, to) = (self.net.clone(), self.own, to.id);
        async move {
            let net = net.upgrade().ok_or(io::ErrorKind::NotConnected)?;
            let is_cut = [own, to].iter().any(|id| net.cut.lock().expect("a lock").contains(id));
            let store = net.stores.lock().expect("a lock").get(&to).cloned();
            let store = store.filter(|_| !is_cut).ok_or(io::ErrorKind::ConnectionRefused)?;
            let (here, there) = tokio::io::duplex(1 << 20);
            let here = Cuttable { inner: here, net: Arc::downgrade(&net), ends: [own, to] };
            tokio::spawn(async move { store.serve_peer(kind, Box::new(there)).await });
            Ok(Box::new(here) as Box<dyn PeerIo>)
        }
        .boxed()
    }
}

/// A stream that breaks when one of its ends is cut off.
struct Cuttable {
    inner: tokio::io::DuplexStream,
    net: Weak<Net>,
    ends: [u64; 2],
}

impl Cuttable {
    fn check(&self) -> io::Result<()> {
        let net = self.net.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let cut = net.cut.lock().expect("a lock");
        if self.ends.iter().any(|end| cut.contains(end)) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl tokio::io::AsyncRead for Cuttable {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        self.check()?;
        std::pin::Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Cuttable {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        self.check()?;
        std::pin::Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A cluster on temporary folders.
struct Cluster {
    net: Arc<Net>,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        Self { net: Arc::default(), folder: tempfile::tempdir().expect("a folder") }
    }

    async fn of(servers: u64) -> Self {
        let cluster = Self::new();
        cluster.start(1).await.initialize().await.expect("initialized");
        for id in 2..=servers {
            let allocated = cluster.store(1).allocate_member_id().await.expect("an id");
            assert_eq!(allocated, id);
            let store = cluster.start(id).await;
            cluster.store(1).add_member(store.own().clone()).await.expect("added");
        }
        cluster
    }

    fn data(&self, id: u64) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    async fn start(&self, id: u64) -> Store {
        let member =
            Member { id, name: format!("server-{id}"), link_address: format!("{id}"), api_address: String::new() };
        let config = Config { data_dir: self.data(id), member, timing: Timing::LAN };
        let store =
            Store::open(config, Arc::new(Side { net: Arc::downgrade(&self.net), own: id })).await.expect("opened");
        self.net.stores.lock().expect("a lock").insert(id, store.clone());
        store
    }

    async fn stop(&self, id: u64) {
        let store = self.net.stores.lock().expect("a lock").remove(&id);
        store.expect("it runs").shutdown().await;
    }

    fn store(&self, id: u64) -> Store {
        self.net.stores.lock().expect("a lock").get(&id).cloned().expect("it runs")
    }

    /// The id of the leader that `id` knows of, other than `not`.
    async fn leader(&self, id: u64, not: Option<u64>) -> u64 {
        let mut leadership = self.store(id).leadership();
        let known =
            leadership.wait_for(|leadership| leadership.leader.as_ref().is_some_and(|leader| Some(leader.id) != not));
        let known = tokio::time::timeout(PATIENCE, known).await.expect("in time").expect("the store runs");
        known.leader.as_ref().expect("it was waited for").id
    }
}

fn put(key: &str, value: &str) -> Transaction {
    let mut transaction = Transaction::default();
    transaction.put(key, value.to_string());
    transaction
}

fn value(store: &Store, key: &str) -> Option<String> {
    store.view().get(key).map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_commits_and_reads_what_another_acknowledged() {
    let cluster = Cluster::of(3).await;
    for id in 1..=3 {
        let key = format!("/from/{id}");
        let committed = cluster.store(id).commit(put(&key, "x")).await.expect("committed");
        for reader in 1..=3 {
            let revision = cluster.store(reader).read_barrier().await.expect("a barrier");
            assert!(revision >= committed.revision);
            assert_eq!(value(&cluster.store(reader), &key).as_deref(), Some("x"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_replaced_and_no_acknowledged_write_is_missing() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader(1, None).await;
    for number in 0..20 {
        cluster.store(1).commit(put(&format!("/before/{number}"), "x")).await.expect("committed");
    }
    cluster.stop(leader).await;
    let survivor = (1..=3).find(|id| *id != leader).expect("two are left");
    cluster.store(survivor).commit(put("/after", "x")).await.expect("the others go on");
    cluster.store(survivor).read_barrier().await.expect("a barrier");
    assert_eq!(cluster.store(survivor).view().count("/before/"), 20);

    let back = cluster.start(leader).await;
    back.read_barrier().await.expect("it catches up");
    assert_eq!(value(&back, "/after").as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader(1, None).await;
    let survivor = (1..=3).find(|id| *id != leader).expect("two are left");
    cluster.net.cut.lock().expect("a lock").insert(leader);
    cluster.leader(survivor, Some(leader)).await;
    cluster.store(survivor).commit(put("/a", "new")).await.expect("the majority goes on");

    let old = cluster.store(leader);
    let refused = tokio::time::timeout(Duration::from_secs(2), old.commit(put("/a", "old"))).await;
    assert!(!matches!(refused, Ok(Ok(_))), "a minority acknowledged a write");
    let read = tokio::time::timeout(Duration::from_secs(2), old.read_barrier()).await;
    assert!(!matches!(read, Ok(Ok(_))), "a minority answered a linearizable read");

    cluster.net.cut.lock().expect("a lock").clear();
    old.read_barrier().await.expect("it is back");
    assert_eq!(value(&old, "/a").as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_keeps_everything_and_revisions_go_on() {
    let cluster = Cluster::of(3).await;
    let mut last = Revision(0);
    for number in 0..50 {
        last = cluster.store(2).commit(put(&format!("/k/{number}"), "x")).await.expect("committed").revision;
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    assert_eq!(cluster.store(3).read_barrier().await.expect("a barrier"), last);
    assert_eq!(cluster.store(3).view().count("/k/"), 50);
    assert_eq!(cluster.store(3).commit(put("/k/0", "y")).await.expect("committed").revision, Revision(last.0 + 1));
    assert_eq!(cluster.store(1).allocate_member_id().await.expect("an id"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_away_for_long_gets_a_snapshot() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader(1, None).await;
    let away = (1..=3).find(|id| *id != leader).expect("two are left");
    cluster.stop(away).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64 {
        let store = cluster.store(leader);
        writers.spawn(async move {
            for number in 0..600 {
                store.commit(put(&format!("/many/{writer}"), &number.to_string())).await.expect("committed");
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.expect("written");
    }
    let back = cluster.start(away).await;
    back.read_barrier().await.expect("it catches up");
    assert_eq!(value(&back, "/many/63").as_deref(), Some("599"));
    // The log of what it missed is gone, so only a snapshot can have brought it here.
    assert!(std::fs::read_dir(cluster.data(away).join("snapshots")).expect("a folder").count() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_a_follower_misses_nothing_while_the_leader_changes() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader(1, None).await;
    let follower = (1..=3).find(|id| *id != leader).expect("two are left");
    let store = cluster.store(follower);
    let mut watch = store.watch("/w/", store.view().revision()).expect("nothing is compacted");
    for number in 0..40 {
        if number == 20 {
            cluster.stop(leader).await;
        }
        store.commit(put(&format!("/w/{number:02}"), "x")).await.expect("committed");
        store.commit(put("/other", "x")).await.expect("committed");
    }
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let event = tokio::time::timeout(PATIENCE, watch.next())
            .await
            .expect("in time")
            .expect("the store runs")
            .expect("not cut off");
        if let WatchEvent::Changes(changes) = event {
            seen.extend(changes.into_iter().map(|change| change.key));
        }
    }
    assert_eq!(seen, (0..40).map(|number| format!("/w/{number:02}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_cut_off() {
    let cluster = Cluster::of(1).await;
    let store = cluster.store(1);
    let mut watch = store.watch("/w", Revision(0)).expect("nothing is compacted");
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = cluster.store(1);
        writers.spawn(async move {
            for _ in 0..100 {
                store.commit(put("/w", "x")).await.expect("committed");
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.expect("written");
    }
    let mut last = None;
    while let Some(event) = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time") {
        last = Some(event);
    }
    assert!(matches!(last, Some(Err(shoal_store::Lagged))));
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_and_missing_majorities_are_told_apart() {
    let cluster = Cluster::of(3).await;
    let first = cluster.store(2).commit(put("/a", "1")).await.expect("committed").revision;
    let mut transaction = put("/a", "2");
    transaction.require_modified_at("/a", Revision(first.0 + 7));
    let failed = cluster.store(3).commit(transaction).await;
    assert!(
        matches!(failed, Err(CommitError::PreconditionFailed { index: 0, current: Some(entry) }) if entry.modified == first)
    );

    let behind = cluster.store(1).wait_for(Revision(1_000_000), Duration::from_millis(1)).await;
    assert!(matches!(behind, Err(ReadError::Behind { wanted: Revision(1_000_000), .. })));

    for id in [1, 2] {
        cluster.stop(id).await;
    }
    assert!(matches!(cluster.store(3).read_barrier().await, Err(ReadError::Unavailable)));
    let lost = cluster.store(3).commit(put("/a", "3")).await;
    assert!(matches!(lost, Err(CommitError::Unavailable | CommitError::Unknown { .. })), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_directory_is_refused() {
    let cluster = Cluster::of(1).await;
    let config = Config { data_dir: cluster.data(1), member: cluster.store(1).own().clone(), timing: Timing::LAN };
    let refused = Store::open(config, Arc::new(Side { net: Weak::new(), own: 1 })).await;
    let message = refused.err().expect("the directory is locked").to_string();
    assert!(message.contains("another server uses this directory"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_revision_that_is_still_to_come_repeats_nothing() {
    let cluster = Cluster::of(1).await;
    let store = cluster.store(1);
    let before = store.commit(put("/w/0", "x")).await.expect("committed").revision;
    let mut watch = store.watch("/w/", Revision(before.0 + 2)).expect("nothing is compacted");
    for number in 1..=3 {
        store.commit(put(&format!("/w/{number}"), "x")).await.expect("committed");
    }
    let event = tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("in time")
        .expect("the store runs")
        .expect("not cut off");
    let WatchEvent::Changes(changes) = event else { panic!("{event:?}") };
    assert_eq!(changes.into_iter().map(|change| change.key).collect::<Vec<_>>(), ["/w/3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_objects_reach_a_server_that_was_away() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader(1, None).await;
    let away = (1..=3).find(|id| *id != leader).expect("two are left");
    cluster.stop(away).await;
    // More than a frame may hold, and far fewer entries than make a snapshot.
    let largest = "x".repeat(3 << 19);
    for number in 0..30 {
        cluster.store(leader).commit(put(&format!("/large/{number}"), &largest)).await.expect("committed");
    }
    let back = cluster.start(away).await;
    back.read_barrier().await.expect("it catches up");
    assert_eq!(back.view().count("/large/"), 30);
}
