//! What a store makes of a disk that did not keep everything: torn tails are cut off, damage is named, nothing acknowledged is lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shoal_store::{CommitError, Config, Member, PeerIo, PeerStream, Peers, Store, Timing, Transaction};

struct Nobody;

impl Peers for Nobody {
    fn open(&self, _to: &Member, _kind: PeerStream) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed()
    }
}

async fn open(data: &Path) -> Result<Store, shoal_store::OpenError> {
    let member = Member { id: 1, name: "server-1".to_string(), ..Member::default() };
    Store::open(Config { data_dir: data.to_path_buf(), member, timing: Timing::LAN }, Arc::new(Nobody)).await
}

async fn write(store: &Store, count: usize) {
    for number in 0..count {
        let mut transaction = Transaction::default();
        transaction.put(format!("/k/{number}"), "a value that is long enough to be found");
        store.commit(transaction).await.expect("committed");
    }
}

/// The files of the log that have content, oldest first.
fn chunks(data: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(data.join("log")).expect("a folder").map(|file| file.expect("a file").path()).collect();
    files.retain(|file| std::fs::metadata(file).expect("a file").len() > 0);
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_being_written_is_cut_off_and_the_rest_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await.expect("opened");
    store.initialize().await.expect("initialized");
    write(&store, 20).await;
    store.shutdown().await;

    let last = chunks(folder.path()).pop().expect("a log");
    let mut content = std::fs::read(&last).expect("read");
    // The beginning of a record that never got its end: a copy of the file's own first record, cut short.
    let torn = content[..12.min(content.len())].to_vec();
    content.extend_from_slice(&torn);
    std::fs::write(&last, content).expect("written");

    let store = open(folder.path()).await.expect("opened again");
    store.read_barrier().await.expect("it leads");
    assert_eq!(store.view().count("/k/"), 20);
    write(&store, 25).await;
    assert_eq!(store.view().count("/k/"), 25);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_is_refused_with_the_place_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await.expect("opened");
    store.initialize().await.expect("initialized");
    write(&store, 20).await;
    store.shutdown().await;

    let first = chunks(folder.path()).remove(0);
    let mut content = std::fs::read(&first).expect("read");
    let needle = b"long enough to be found";
    let place = content.windows(needle.len()).position(|window| window == needle).expect("the log has the value");
    content[place] ^= 1;
    std::fs::write(&first, content).expect("written");

    let message = open(folder.path()).await.err().expect("it is refused").to_string();
    assert!(
        message.contains(&folder.path().join("log").display().to_string()) && message.contains("new member"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_above_the_limit_never_reaches_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await.expect("opened");
    store.initialize().await.expect("initialized");
    let mut transaction = Transaction::default();
    for number in 0..8 {
        transaction.put(format!("/big/{number}"), vec![0; 3 << 19]);
    }
    let refused = store.commit(transaction).await;
    assert!(
        matches!(&refused, Err(CommitError::TooLarge { message }) if message.contains("limit of 8388608")),
        "{refused:?}"
    );
    let size: u64 = chunks(folder.path()).iter().map(|file| std::fs::metadata(file).expect("a file").len()).sum();
    assert!(size < 3 << 19, "{size}");
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_again_at_once_after_a_shutdown() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await.expect("opened");
    store.initialize().await.expect("initialized");
    for round in 1..=5 {
        store
            .commit({
                let mut transaction = Transaction::default();
                transaction.put(format!("/k/{round}"), "x");
                transaction
            })
            .await
            .ok();
    }
    store.shutdown().await;
    for _ in 0..5 {
        let store = open(folder.path()).await.expect("opened again");
        store.read_barrier().await.expect("it leads");
        assert_eq!(store.view().count("/k/"), 5);
        store.shutdown().await;
    }
}
