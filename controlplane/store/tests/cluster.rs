//! Stores in one process over in-memory streams: what clients are promised when servers stop, are cut off and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shoal_store::seal::Keyring;
use shoal_store::{
    Capacity, CommitError, Config, Folder, Member, MembershipError, PeerIo, PeerStream, Peers, ReadError, Revision,
    Store, Transaction, WatchEvent,
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
    keys: Keyring,
    capacity: Capacity,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keyring::generate().expect("a ring");
        Self { net: Arc::default(), folder, keys, capacity: Capacity::default() }
    }

    async fn of(servers: u64) -> Self {
        Self::new().grown(servers).await
    }

    async fn grown(self, servers: u64) -> Self {
        let cluster = self;
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
        self.start_as(id, &format!("server-{id}")).await
    }

    fn config(&self, id: u64, name: &str) -> Config {
        let member = Member { id, name: name.to_string(), link_address: format!("{id}"), api_address: String::new() };
        let disk = Folder::open(&self.data(id)).expect("a disk");
        Config { capacity: self.capacity, ..Config::new(Arc::new(disk), self.keys.clone(), member) }
    }

    async fn start_as(&self, id: u64, name: &str) -> Store {
        let config = self.config(id, name);
        let store =
            Store::open(config, Arc::new(Side { net: Arc::downgrade(&self.net), own: id })).await.expect("opened");
        self.net.stores.lock().expect("a lock").insert(id, store.clone());
        store
    }

    async fn stop(&self, id: u64) {
        let store = self.net.stores.lock().expect("a lock").remove(&id);
        store.expect("it runs").shutdown().await;
    }

    /// A new server, added by `asked`.
    async fn add(&self, asked: u64, name: &str) -> u64 {
        let id = self.store(asked).allocate_member_id().await.expect("an id");
        let store = self.start_as(id, name).await;
        self.store(asked).add_member(store.own().clone()).await.expect("added");
        id
    }

    async fn voters(&self, asked: u64) -> Vec<u64> {
        let statuses = self.store(asked).member_statuses().await.expect("statuses");
        statuses.into_iter().filter(|status| status.is_voter).map(|status| status.member.id).collect()
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
    let refused = Folder::open(&cluster.data(1)).map(drop).expect_err("the directory is locked").to_string();
    assert!(refused.contains("another process uses this directory"), "{refused}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_to_five_and_shrinks_while_it_is_written_to() {
    let cluster = Cluster::of(1).await;
    let writer = tokio::spawn({
        let store = cluster.store(1);
        async move {
            let mut written = 0;
            while written < 400 {
                match store.commit(put(&format!("/k/{written:03}"), "x")).await {
                    Ok(_) => written += 1,
                    // Leadership moves when the leader is removed, and what was on its way then is unknown.
                    Err(CommitError::Unknown { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    for number in 2..=5 {
        assert_eq!(cluster.add(1, &format!("server-{number}")).await, number);
    }
    assert_eq!(cluster.voters(3).await, [1, 2, 3, 4, 5]);
    let leader = cluster.leader(1, None).await;
    cluster.store(1).transfer_leadership(Some(2)).await.expect("transferred");
    assert_ne!(leader, 2);
    // The leader itself, by another: it hands over first.
    cluster.store(1).remove_member(2).await.expect("removed");
    cluster.store(1).remove_member(5).await.expect("removed");
    assert_eq!(cluster.voters(4).await, [1, 3, 4]);
    writer.await.expect("written");
    for id in [1, 3, 4] {
        cluster.store(id).read_barrier().await.expect("a barrier");
        assert_eq!(cluster.store(id).view().count("/k/"), 400, "server {id}");
    }
    // Ids are never given again.
    assert_eq!(cluster.add(3, "server-6").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_disk_comes_back_as_another_in_its_place() {
    let cluster = Cluster::of(3).await;
    cluster.store(1).commit(put("/a", "x")).await.expect("committed");
    let leader = cluster.leader(1, None).await;
    let (lost, asked) = if leader == 3 { (2, 3) } else { (3, leader) };
    cluster.stop(lost).await;
    std::fs::remove_dir_all(cluster.data(lost)).expect("removed");
    let id = cluster.add(asked, &format!("server-{lost}")).await;
    assert_eq!(id, 4);
    let voters = cluster.voters(asked).await;
    assert_eq!(voters.len(), 3);
    assert!(voters.contains(&4) && !voters.contains(&lost), "{voters:?}");
    cluster.store(4).read_barrier().await.expect("a barrier");
    assert_eq!(value(&cluster.store(4), "/a").as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_that_would_stop_the_cluster_are_refused() {
    let cluster = Cluster::of(1).await;
    let refused = cluster.store(1).remove_member(1).await;
    assert!(matches!(&refused, Err(MembershipError::Refused(text)) if text.contains("only server")), "{refused:?}");
    cluster.store(1).remove_member(17).await.expect("it is not there, as was asked for");

    let cluster = cluster.grown_by(&["server-2", "server-3"]).await;
    cluster.store(1).transfer_leadership(Some(1)).await.expect("it leads");
    cluster.stop(3).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let refused = cluster.store(1).remove_member(2).await;
    assert!(matches!(&refused, Err(MembershipError::Refused(text)) if text.contains("no majority")), "{refused:?}");
    let statuses = cluster.store(2).member_statuses().await.expect("statuses");
    let reachable: Vec<bool> = statuses.iter().map(|status| status.is_reachable).collect();
    assert_eq!(reachable, [true, true, false]);
    cluster.store(2).remove_member(3).await.expect("the dead one");
    assert_eq!(cluster.voters(1).await, [1, 2]);
    let refused = cluster.store(2).transfer_leadership(Some(3)).await;
    assert!(matches!(&refused, Err(MembershipError::Refused(text)) if text.contains("not there")), "{refused:?}");
}

impl Cluster {
    async fn grown_by(self, names: &[&str]) -> Self {
        for name in names {
            self.add(1, name).await;
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_time_is_taken_away_and_watchers_are_told() {
    let cluster = Cluster::of(3).await;
    let store = cluster.store(2);
    let mut watch = store.watch("/", store.view().revision()).expect("nothing is compacted");
    let mut transaction = Transaction::default();
    let long_ago = 7.try_into().expect("not zero");
    transaction.put_until("/gone", "x", long_ago).put_until("/stays", "x", shoal_store::UnixSeconds::MAX);
    store.commit(transaction).await.expect("committed");
    let gone = async {
        loop {
            if let WatchEvent::Changes(changes) = watch.next().await.expect("the store runs").expect("not cut off")
                && let Some(change) = changes.iter().find(|change| change.current.is_none())
            {
                return change.key.clone();
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, gone).await.expect("in time"), "/gone");
    assert_eq!(value(&store, "/stays").as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_deletes_and_says_so_on_every_server() {
    let capacity = Capacity { state_bytes: 10_000, ..Capacity::default() };
    let cluster = Cluster { capacity, ..Cluster::new() }.grown(3).await;
    for number in 0..3 {
        let large = "x".repeat(4_900);
        cluster.store(1).commit(put(&format!("/large/{number}"), &large)).await.expect("there is room");
    }
    for id in 1..=3 {
        let refused = cluster.store(id).commit(put("/more", "x")).await;
        assert!(matches!(refused, Err(CommitError::Full { size }) if size > 14_000), "{refused:?}");
    }
    let mut transaction = Transaction::default();
    transaction.delete("/large/0").delete("/large/1");
    cluster.store(3).commit(transaction).await.expect("deletes are taken");
    cluster.store(2).commit(put("/more", "x")).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_large_objects_does_not_fill_the_disk() {
    let capacity = Capacity { log_bytes: 8 << 20, ..Capacity::default() };
    let cluster = Cluster { capacity, ..Cluster::new() }.grown(1).await;
    let large = "x".repeat(1 << 20);
    for number in 0..60 {
        cluster.store(1).commit(put("/large", &format!("{number}{large}"))).await.expect("committed");
    }
    let size = || {
        let files = std::fs::read_dir(cluster.data(1).join("wal")).expect("a folder");
        files.map(|file| file.expect("a file").metadata().expect("a file").len()).sum::<u64>()
    };
    let small = async {
        while size() > 34 << 20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, small).await.expect("the log was cut");
    cluster.stop(1).await;
    cluster.start(1).await.read_barrier().await.expect("it leads");
    assert!(value(&cluster.store(1), "/large").expect("there").starts_with("59x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_keys_were_changed_no_file_needs_the_former_one() {
    let cluster = Cluster::of(1).await;
    let store = cluster.store(1);
    store.commit(put("/registry/core/secrets/default/a", "a well known secret")).await.expect("committed");
    cluster.keys.adopt(&cluster.keys.rotated().expect("rotated"));
    store.reseal().await.expect("sealed anew");
    drop(store);
    cluster.stop(1).await;
    let mut seen = 0;
    for folder in ["wal", "snapshots"] {
        for file in std::fs::read_dir(cluster.data(1).join(folder)).expect("a folder") {
            let content = std::fs::read(file.expect("a file").path()).expect("read");
            let needle = b"well known";
            assert!(!content.windows(needle.len()).any(|window| window == needle));
            seen += content.len();
        }
    }
    assert!(seen > 0);
    let only_new = cluster.keys.render().replace("\"1\"", "\"9\"");
    let cluster = Cluster { keys: Keyring::parse(&only_new).expect("a ring"), ..cluster };
    cluster.start(1).await.read_barrier().await.expect("it leads");
    assert_eq!(value(&cluster.store(1), "/registry/core/secrets/default/a").as_deref(), Some("a well known secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_made_of_an_image_goes_on_above_it_and_others_join_it() {
    let cluster = Cluster::of(3).await;
    for number in 0..50 {
        cluster.store(1).commit(put(&format!("/k/{number}"), "x")).await.expect("committed");
    }
    let image = cluster.store(1).image();
    let (revision, before) = (image.revision(), image.clone());

    let restored = Cluster { keys: Keyring::generate().expect("a ring"), ..Cluster::new() };
    let id = image.last_member() + 1;
    let config = restored.config(id, "server-1");
    let image = image.raised(Revision(revision.0 + 1_000), id);
    shoal_store::seed(config.disk, config.keys, config.member, image).await.expect("seeded");
    let store = restored.start_as(id, "server-1").await;
    store.read_barrier().await.expect("it leads");
    assert!(store.is_initialized().await.expect("it runs"));
    for (key, entry) in before.iter() {
        assert_eq!(store.view().get(key), Some(entry));
    }
    assert!(store.watch("", revision).is_err(), "watches from before must list again");
    let committed = store.commit(put("/new", "x")).await.expect("committed");
    assert_eq!(committed.revision, Revision(revision.0 + 1_001));
    // A server that joins gets the state and not only the log after it.
    let next = restored.add(id, "server-2").await;
    assert_eq!(next, id + 1);
    restored.store(next).read_barrier().await.expect("a barrier");
    assert_eq!(restored.store(next).view().count("/k/"), 50);
    drop(store);
    restored.stop(id).await;
    restored.start_as(id, "server-1").await.read_barrier().await.expect("a restart");
}
