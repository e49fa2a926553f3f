//! Downloads that break off and are gone on with.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shoal_images::{Keyring, PullPolicy};

use crate::shelf::{Shelf, store};

/// A module of so many bytes: one long section that nobody runs.
fn long(bytes: u8) -> Vec<u8> {
    [b"\0asm\x01\0\0\0\x00".as_slice(), &[bytes, 1, b'x'], &vec![7; usize::from(bytes) - 2]].concat()
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let wasm = long(100);
    shelf.push("hello", "1", &wasm);
    *shelf.breaks_after.lock().expect("a lock") = Some(40);
    let own = store(folder.path(), &shelf);
    let image = own.image("hello:1", PullPolicy::IfNotPresent, &Keyring::default()).await.expect("an image");
    assert_eq!(std::fs::read(&image.path).expect("a file"), wasm);
    assert_eq!(shelf.bytes_sent.load(Ordering::Relaxed), wasm.len(), "nothing is sent twice");
}

#[tokio::test]
async fn the_next_process_goes_on_with_what_the_last_one_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let wasm = long(100);
    shelf.push("hello", "1", &wasm);
    let of = |shelf: &Arc<Shelf>| store(folder.path(), shelf);
    *shelf.breaks_after.lock().expect("a lock") = Some(60);
    let gone = Arc::clone(&shelf);
    // The registry goes with the link.
    let watch = tokio::spawn(async move {
        while gone.bytes_sent.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        gone.is_gone.store(true, Ordering::Relaxed);
    });
    let failed = of(&shelf).image("hello:1", PullPolicy::IfNotPresent, &Keyring::default()).await;
    assert!(failed.is_err());
    watch.await.expect("it ends");
    shelf.is_gone.store(false, Ordering::Relaxed);
    *shelf.breaks_after.lock().expect("a lock") = None;
    of(&shelf).image("hello:1", PullPolicy::IfNotPresent, &Keyring::default()).await.expect("an image");
    assert_eq!(shelf.bytes_sent.load(Ordering::Relaxed), wasm.len(), "nothing is sent twice");
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_from_the_beginning_and_not_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let wasm = long(100);
    shelf.push("hello", "1", &wasm);
    shelf.has_no_ranges.store(true, Ordering::Relaxed);
    *shelf.breaks_after.lock().expect("a lock") = Some(40);
    let own = store(folder.path(), &shelf);
    let error = own.image("hello:1", PullPolicy::IfNotPresent, &Keyring::default()).await.expect_err("it breaks off");
    assert!(error.to_string().contains("the link is gone"), "{error}");
    *shelf.breaks_after.lock().expect("a lock") = None;
    let image = own.image("hello:1", PullPolicy::IfNotPresent, &Keyring::default()).await.expect("an image");
    assert_eq!(std::fs::read(&image.path).expect("a file"), wasm);
}
