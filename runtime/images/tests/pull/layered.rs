//! Container images: their module is a file in a layer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use shoal_images::{Digest, Keyring, PullPolicy, media};
use tar::{Builder, EntryType, Header};

use crate::shelf::{Shelf, module, store};

/// A layer: paths, each with what is in it or, after an arrow, what it leads to.
fn layer(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        match content.strip_prefix(b"-> ") {
            Some(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                let target = std::str::from_utf8(target).expect("a path");
                builder.append_link(&mut header, path, target).expect("a link");
            }
            None => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, *content).expect("a file");
            }
        }
    }
    builder.into_inner().expect("an archive")
}

/// An image of these layers, the lowest first, as `app:1`.
fn push(shelf: &Shelf, platform: (&str, &str), entrypoint: &[&str], layers: &[Vec<u8>]) {
    let blob = |media_type: &str, bytes: &[u8]| -> Value {
        let digest = Digest::of(bytes);
        shelf.put(&format!("/v2/app/blobs/{digest}"), bytes);
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let config =
        json!({"os": platform.0, "architecture": platform.1, "config": {"Entrypoint": entrypoint, "Env": ["A=b"]}});
    let manifest = json!({
        "schemaVersion": 2,
        "config": blob(media::IMAGE_CONFIG, config.to_string().as_bytes()),
        "layers": layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    shelf.put("/v2/app/manifests/1", manifest.to_string().as_bytes());
}

#[tokio::test]
async fn the_module_of_a_container_image_is_taken_out_of_its_layers_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let lower = layer(&[("releases/1/main.wasm", &module(1)), ("releases/2/main.wasm", &module(2))]);
    let upper = layer(&[("current", b"-> releases/2"), ("app.wasm", b"-> /current/main.wasm")]);
    push(&shelf, ("wasip1", "wasm"), &["/app.wasm", "-v"], &[lower, upper]);
    let own = store(folder.path(), &shelf);
    let image = own.image("app:1", PullPolicy::Always, &Keyring::default()).await.expect("an image");
    assert_eq!(std::fs::read(&image.path).expect("a file"), module(2));
    assert_eq!((image.module, image.was_fetched), (Digest::of(&module(2)), true));
    assert_eq!(
        (image.entrypoint, image.environment),
        (vec!["/app.wasm".into(), "-v".into()], vec![("A".into(), "b".into())])
    );
    let sent = shelf.blobs_sent.load(Ordering::Relaxed);
    let again = own.image("app:1", PullPolicy::Always, &Keyring::default()).await.expect("an image");
    assert!(!again.was_fetched);
    // Its configuration alone.
    assert_eq!(shelf.blobs_sent.load(Ordering::Relaxed), sent + 1);
    // No layer stays behind.
    assert_eq!(std::fs::read_dir(folder.path().join("blobs/partial")).expect("a folder").count(), 0);
    assert_eq!(Arc::new(own).list().await.expect("a list").len(), 1);
}

#[tokio::test]
async fn what_is_not_in_the_layers_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let own = store(folder.path(), &shelf);
    let told = async |platform, entrypoint: &[&str], layers: &[Vec<u8>]| {
        push(&shelf, platform, entrypoint, layers);
        own.image("app:1", PullPolicy::Always, &Keyring::default()).await.expect_err("refused").to_string()
    };
    let wasm = ("wasi", "wasm");
    let there = layer(&[("main.wasm", &module(1))]);
    let gone = layer(&[(".wh.main.wasm", b"")]);
    let circle = layer(&[("main.wasm", b"-> other"), ("other", b"-> main.wasm")]);
    let removed = told(wasm, &["/main.wasm"], &[there.clone(), gone]).await;
    assert!(removed.contains("entrypoint /main.wasm is in none of its layers"), "{removed}");
    let circle = told(wasm, &["/main.wasm"], &[circle]).await;
    assert!(circle.contains("leads in circles"), "{circle}");
    let unnamed = told(wasm, &[], std::slice::from_ref(&there)).await;
    assert!(unnamed.contains("names no entrypoint"), "{unnamed}");
    let broken = told(wasm, &["/main.wasm"], &[there[..520].to_vec()]).await;
    assert!(broken.contains("cannot be unpacked"), "{broken}");
    let linux = told(("linux", "amd64"), &["/main.wasm"], &[there]).await;
    assert!(linux.contains("it is for linux/amd64"), "{linux}");
}
