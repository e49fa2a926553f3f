//! What a store makes of a disk that fails: torn tails are cut off, damage is named, nothing acknowledged is lost or made up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shoal_store::seal::Keyring;
use shoal_store::{
    Capacity, CommitError, Config, Disk, DiskFile, Folder, Member, OpenError, PeerIo, PeerStream, Peers, Store,
    Transaction,
};

struct Nobody;

impl Peers for Nobody {
    fn open(&self, _to: &Member, _kind: PeerStream) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed()
    }
}

/// What happens to a disk's operations.
#[derive(Default)]
struct Faults {
    /// Writes above this many bytes in all are refused, as on a full disk; 0 for never.
    room: AtomicU64,
    written: AtomicU64,
    /// From this sync on all fail; 0 for never.
    failing_sync: AtomicU64,
    syncs: AtomicU64,
    /// How long a sync takes, in milliseconds.
    slow: AtomicU64,
}

#[derive(Clone)]
struct Faulty {
    inner: Arc<Folder>,
    faults: Arc<Faults>,
}

struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl Faults {
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.slow.load(Ordering::Relaxed)));
        let syncs = self.syncs.fetch_add(1, Ordering::Relaxed) + 1;
        let failing = self.failing_sync.load(Ordering::Relaxed);
        if failing > 0 && syncs >= failing { Err(io::Error::other("injected: input/output error")) } else { Ok(()) }
    }
}

impl Disk for Faulty {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile { inner: self.inner.create(name, size)?, faults: self.faults.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile { inner: self.inner.open(name)?, faults: self.faults.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.inner.sync_folder(folder)
    }

    fn close(&self) {
        self.inner.close();
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let room = self.faults.room.load(Ordering::Relaxed);
        let written = self.faults.written.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if room > 0 && written > room {
            // Some of it gets there, as it does.
            self.inner.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_at(offset, bytes)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.inner.set_size(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.inner.sync()
    }
}

/// A server's disk and keys, through its stops and starts.
struct Server {
    folder: tempfile::TempDir,
    keys: Keyring,
    capacity: Capacity,
    faults: Arc<Faults>,
}

impl Server {
    fn new() -> Self {
        let capacity = Capacity { snapshot_entries: 40, ..Capacity::default() };
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, keys: Keyring::generate().expect("a ring"), capacity, faults: Arc::default() }
    }

    async fn open(&self) -> Result<Store, OpenError> {
        let member = Member { id: 1, name: "server-1".to_string(), ..Member::default() };
        let inner = Arc::new(Folder::open(self.folder.path()).expect("a disk"));
        let disk = Faulty { inner, faults: self.faults.clone() };
        let config = Config::new(Arc::new(disk), self.keys.clone(), member);
        Store::open(Config { capacity: self.capacity, ..config }, Arc::new(Nobody)).await
    }

    /// A store with `/k/0` up to `/k/<count - 1>`, that was closed in order.
    async fn written(count: usize) -> Self {
        let server = Self::new();
        let store = server.open().await.expect("opened");
        store.initialize().await.expect("initialized");
        write(&store, 0..count).await;
        store.shutdown().await;
        server
    }

    fn refused(&self, opened: Result<Store, OpenError>) -> String {
        let error = opened.map(drop).expect_err("it is refused");
        format!("{error}")
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        files(&self.folder.path().join(folder))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "wal" || ending == "snapshot"));
    files.sort();
    files
}

async fn write(store: &Store, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let mut transaction = Transaction::default();
        transaction.put(format!("/k/{number}"), value(number));
        store.commit(transaction).await.expect("committed");
    }
}

fn value(number: usize) -> String {
    format!("the value of {number}, which is long enough to be hit")
}

/// Every key has the value that was written, and there is no other one.
fn is_right(store: &Store, least: usize) -> bool {
    let view = store.view();
    let right = (0..view.count("/k/"))
        .all(|number| view.get(&format!("/k/{number}")).is_some_and(|entry| entry.value == value(number).as_bytes()));
    right && view.count("/k/") >= least
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_was_being_written_is_cut_off_and_the_rest_is_there() {
    let server = Server::written(20).await;
    let last = server.files("wal").pop().expect("a log");
    let mut content = std::fs::read(&last).expect("read");
    // The beginning of a frame that never got its end: a copy of the file's own first frame, cut short.
    let torn = content[64..100].to_vec();
    content.extend_from_slice(&torn);
    std::fs::write(&last, content).expect("written");

    let store = server.open().await.expect("opened again");
    store.read_barrier().await.expect("it leads");
    assert!(is_right(&store, 20));
    write(&store, 20..25).await;
    store.shutdown().await;
    let store = server.open().await.expect("opened again");
    store.read_barrier().await.expect("it leads");
    assert!(is_right(&store, 25));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_is_refused_by_name_or_changes_nothing() {
    let server = Server::written(100).await;
    assert!(!server.files("snapshots").is_empty());
    let mut refused = 0;
    for path in server.files("wal").into_iter().chain(server.files("snapshots")) {
        let whole = std::fs::read(&path).expect("read");
        let step = (whole.len() / 40).max(1);
        for place in (0..whole.len()).step_by(step) {
            let copy = tempfile::tempdir().expect("a folder");
            for folder in ["wal", "snapshots"] {
                std::fs::create_dir(copy.path().join(folder)).expect("made");
                for file in std::fs::read_dir(server.folder.path().join(folder)).expect("a folder") {
                    let file = file.expect("a file").path();
                    let to = copy.path().join(folder).join(file.file_name().expect("a name"));
                    std::fs::copy(&file, to).expect("copied");
                }
            }
            let mut content = whole.clone();
            content[place] ^= 1 << (place % 8);
            let damaged = path.strip_prefix(server.folder.path()).expect("inside");
            std::fs::write(copy.path().join(damaged), content).expect("written");
            let name = damaged.display().to_string();
            let hit =
                Server { folder: copy, keys: server.keys.clone(), capacity: server.capacity, faults: Arc::default() };
            match hit.open().await {
                Ok(store) => {
                    store.read_barrier().await.expect("it leads");
                    assert!(is_right(&store, 100), "{name} at {place}");
                    store.shutdown().await;
                }
                Err(error) => {
                    assert!(error.to_string().contains(&name), "{name} at {place}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 25, "only {refused} were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_files_are_missed() {
    // Each restart begins a new file of the log.
    let server = Server::written(30).await;
    for round in 1..4 {
        let store = server.open().await.expect("opened");
        store.read_barrier().await.expect("it leads");
        write(&store, 30 * round..30 * (round + 1)).await;
        store.shutdown().await;
    }
    let logs = server.files("wal");
    assert!(logs.len() >= 3, "{logs:?}");
    for missing in logs {
        let aside = server.folder.path().join("aside");
        std::fs::rename(&missing, &aside).expect("moved");
        match server.open().await {
            // The oldest may have had nothing but what a snapshot has as well.
            Ok(store) => {
                store.read_barrier().await.expect("it leads");
                assert!(is_right(&store, 120), "{}", missing.display());
                store.shutdown().await;
            }
            Err(error) => assert!(error.to_string().contains("missing"), "{}: {error}", missing.display()),
        }
        std::fs::rename(&aside, &missing).expect("moved back");
    }
    for folder in ["wal", "snapshots"] {
        let (place, aside) = (server.folder.path().join(folder), server.folder.path().join("aside"));
        std::fs::rename(&place, &aside).expect("moved");
        match server.open().await {
            // As long as the log has everything since the beginning.
            Ok(store) if folder == "snapshots" => {
                store.read_barrier().await.expect("it leads");
                assert!(is_right(&store, 120), "{folder}");
                store.shutdown().await;
            }
            opened => {
                let message = server.refused(opened);
                assert!(message.contains("failed to read"), "{folder}: {message}");
            }
        }
        let _ = std::fs::remove_dir_all(&place);
        std::fs::rename(&aside, &place).expect("moved back");
    }
    let store = server.open().await.expect("opened");
    store.read_barrier().await.expect("it leads");
    assert!(is_right(&store, 120));
    store.shutdown().await;
}

/// Writes until the disk refuses; answers how many writes were acknowledged.
async fn write_until_it_fails(server: &Server) -> usize {
    let store = server.open().await.expect("opened");
    store.read_barrier().await.expect("it leads");
    let first = store.view().count("/k/");
    let mut acknowledged = first;
    let error = loop {
        let mut transaction = Transaction::default();
        transaction.put(format!("/k/{acknowledged}"), value(acknowledged));
        match store.commit(transaction).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > first, "nothing was written before it failed");
    assert!(matches!(error, CommitError::Unknown { .. } | CommitError::Unavailable), "{error:?}");
    // It is the end of this server: what it would say from here on could be wrong.
    let reason = tokio::time::timeout(Duration::from_secs(10), store.failed()).await.expect("it has failed");
    assert!(!reason.is_empty());
    let after = tokio::time::timeout(Duration::from_secs(20), store.read_barrier()).await.expect("an answer");
    assert!(after.is_err(), "it went on reading");
    store.shutdown().await;
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_server_and_loses_nothing_that_was_acknowledged() {
    let server = Server::written(10).await;
    server.faults.room.store(server.faults.written.load(Ordering::Relaxed) + 20_000, Ordering::Relaxed);
    let acknowledged = write_until_it_fails(&server).await;
    server.faults.room.store(0, Ordering::Relaxed);
    let store = server.open().await.expect("opened again");
    store.read_barrier().await.expect("it leads");
    assert!(is_right(&store, acknowledged));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_fatal() {
    let server = Server::written(10).await;
    server.faults.failing_sync.store(server.faults.syncs.load(Ordering::Relaxed) + 60, Ordering::Relaxed);
    let acknowledged = write_until_it_fails(&server).await;
    server.faults.failing_sync.store(0, Ordering::Relaxed);
    let store = server.open().await.expect("opened again");
    store.read_barrier().await.expect("it leads");
    assert!(is_right(&store, acknowledged));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_is_only_slow() {
    let server = Server::written(10).await;
    server.faults.slow.store(40, Ordering::Relaxed);
    let store = server.open().await.expect("opened");
    store.read_barrier().await.expect("it leads");
    write(&store, 10..30).await;
    assert!(is_right(&store, 30));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_an_earlier_version_is_told_apart() {
    let server = Server::new();
    std::fs::create_dir(server.folder.path().join("log")).expect("made");
    let message = server.refused(server.open().await);
    assert!(message.contains("earlier version"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_opens_nothing_and_says_so() {
    let server = Server::written(10).await;
    let server = Server { keys: Keyring::generate().expect("a ring"), ..server };
    let message = server.refused(server.open().await);
    assert!(message.contains("sealed with another key"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_above_the_limit_never_reaches_the_log() {
    let server = Server::new();
    let store = server.open().await.expect("opened");
    store.initialize().await.expect("initialized");
    let before = server.faults.written.load(Ordering::Relaxed);
    let mut transaction = Transaction::default();
    for number in 0..8 {
        transaction.put(format!("/big/{number}"), vec![0; 3 << 19]);
    }
    let refused = store.commit(transaction).await;
    assert!(
        matches!(&refused, Err(CommitError::TooLarge { message }) if message.contains("limit of 8388608")),
        "{refused:?}"
    );
    assert!(server.faults.written.load(Ordering::Relaxed) - before < 3 << 19);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_again_at_once_after_a_shutdown() {
    let server = Server::written(5).await;
    for _ in 0..5 {
        let store = server.open().await.expect("opened again");
        store.read_barrier().await.expect("it leads");
        assert!(is_right(&store, 5));
        store.shutdown().await;
    }
}
