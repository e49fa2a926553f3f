//! What earlier versions wrote is read. `fixtures/1` is a server's disk and a backup as format 1 of the log, 2 of the snapshots and 1
//! of the backups made them. Fixtures are never changed: a new format gets a new folder, made by the ignored test below.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shoal_store::backup::{self, Opening};
use shoal_store::seal::Keyring;
use shoal_store::{Capacity, Config, Folder, Member, PeerIo, PeerStream, Peers, Store, Transaction, UnixSeconds, View};

struct Nobody;

impl Peers for Nobody {
    fn open(&self, _to: &Member, _kind: PeerStream) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/1")
}

async fn open(folder: &Path, keys: Keyring) -> Store {
    let member = Member { id: 1, name: "server-1".to_string(), ..Member::default() };
    let disk = Arc::new(Folder::open(folder).expect("a disk"));
    let capacity = Capacity { snapshot_entries: 20, segment_bytes: 2048, ..Capacity::default() };
    let config = Config { capacity, ..Config::new(disk, keys, member) };
    Store::open(config, Arc::new(Nobody)).await.expect("opened")
}

fn is_as_written(view: &View) {
    assert_eq!(view.count("/k/"), 30);
    for number in 0..30 {
        let entry = view.get(&format!("/k/{number}")).expect("it was written");
        assert_eq!(entry.value, format!("value {number}").as_bytes());
        assert_eq!((entry.created.0, entry.modified.0), (number + 1, number + 1));
    }
    let short = view.get("/short").expect("it was written");
    assert_eq!(short.expires, UnixSeconds::new(u64::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_s_disk_is_read() {
    let copy = tempfile::tempdir().expect("a folder");
    for folder in ["wal", "snapshots"] {
        std::fs::create_dir(copy.path().join(folder)).expect("made");
        for file in std::fs::read_dir(fixtures().join(folder)).expect("a folder") {
            let file = file.expect("a file").path();
            std::fs::copy(&file, copy.path().join(folder).join(file.file_name().expect("a name"))).expect("copied");
        }
    }
    let keys = Keyring::parse(&std::fs::read_to_string(fixtures().join("keys")).expect("read")).expect("a ring");
    let store = open(copy.path(), keys).await;
    store.read_barrier().await.expect("it leads");
    is_as_written(&store.view());
    assert_eq!(store.allocate_member_id().await.expect("an id"), 2);
    store.shutdown().await;
}

#[test]
fn a_backup_is_read() {
    let file = std::fs::File::open(fixtures().join("backup")).expect("opened");
    let opening = Opening::Passphrase("correct horse".to_string());
    let (head, backup) = backup::read(file, Some(&opening)).expect("read");
    let backup = backup.expect("opened");
    assert_eq!((head.revision, backup.secrets), (31, Some(b"the secrets".to_vec())));
    let state = shoal_state::State::of(backup.image);
    is_as_written(&state.view());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it writes the fixtures of a new format"]
async fn write() {
    let keys = Keyring::generate().expect("a ring");
    std::fs::create_dir_all(fixtures()).expect("made");
    std::fs::write(fixtures().join("keys"), keys.render()).expect("written");
    let store = open(&fixtures(), keys.clone()).await;
    store.initialize().await.expect("initialized");
    for number in 0..30 {
        let mut transaction = Transaction::default();
        transaction.put(format!("/k/{number}"), format!("value {number}"));
        store.commit(transaction).await.expect("committed");
    }
    let mut transaction = Transaction::default();
    transaction.put_until("/short", "x", UnixSeconds::MAX);
    store.commit(transaction).await.expect("committed");
    let secrets = Some(("correct horse", &b"the secrets"[..]));
    let made = backup::create(store.image(), "2026-01-02T03:04:05Z".to_string(), &keys, secrets).expect("begun");
    let made = made.collect::<io::Result<Vec<_>>>().expect("made").concat();
    std::fs::write(fixtures().join("backup"), made).expect("written");
    store.shutdown().await;
    std::fs::remove_file(fixtures().join("lock")).expect("removed");
}
