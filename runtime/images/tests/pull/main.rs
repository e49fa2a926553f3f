//! Pulling from registries that answer, lie, want a password, or are not there.

mod broken_off;
mod layered;
mod private;
mod shelf;
mod signed;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use shoal_images::{Digest, Keyring, PullError, PullPolicy, media};

use shelf::{Shelf, listen, module, store};

#[tokio::test]
async fn an_image_is_fetched_once_and_found_again_by_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let digest = shelf.push("team/hello", "1", &module(1));
    let image = store(folder.path(), &shelf)
        .image("team/hello:1", PullPolicy::IfNotPresent, &Keyring::default())
        .await
        .expect("an image");
    assert_eq!(image.image_id(), format!("team/hello@{digest}"));
    assert_eq!(std::fs::read(&image.path).expect("a file"), module(1));
    assert!(image.was_fetched);
    shelf.is_gone.store(true, Ordering::Relaxed);
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Never, PullPolicy::Always] {
        let again =
            store(folder.path(), &shelf).image("team/hello:1", policy, &Keyring::default()).await.expect("an image");
        assert_eq!((again.was_fetched, again.path), (false, image.path.clone()));
    }
}

#[tokio::test]
async fn many_who_want_one_module_share_a_download() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    for name in ["a", "b", "c"] {
        shelf.push(name, "latest", &module(1));
    }
    let store = store(folder.path(), &shelf);
    let names = ["a", "b", "c", "a", "b", "c:latest"];
    let nobody = Keyring::default();
    let images =
        futures_util::future::try_join_all(names.map(|name| store.image(name, PullPolicy::IfNotPresent, &nobody)))
            .await
            .expect("images");
    assert_eq!(shelf.blobs_sent.load(Ordering::Relaxed), 1);
    assert_eq!(images.iter().filter(|image| image.was_fetched).count(), 1);
    assert!(images.iter().all(|image| image.path == images[0].path));
}

#[tokio::test]
async fn a_tag_that_moved_is_seen_by_always_and_not_by_if_not_present() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let first = shelf.push("hello", "1", &module(1));
    let of = async |text: &str, policy| store.image(text, policy, &Keyring::default()).await.expect("an image");
    assert_eq!(of("hello:1", PullPolicy::Always).await.digest, first);
    let second = shelf.push("hello", "1", &module(2));
    assert_eq!(of("hello:1", PullPolicy::IfNotPresent).await.digest, first);
    assert_eq!(of("hello:1", PullPolicy::Always).await.digest, second);
    assert_eq!(of("hello:1", PullPolicy::IfNotPresent).await.digest, second);
    let pinned = of(&format!("hello@{first}"), PullPolicy::Always).await;
    assert_eq!((pinned.digest, pinned.was_fetched), (first, false));
}

#[tokio::test]
async fn each_failure_names_the_image_and_the_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let failure = async |text: &str, policy| {
        let error = store.image(text, policy, &Keyring::default()).await.expect_err("no image");
        (error.reason(), error.to_string())
    };
    let (reason, message) = failure("Hello:1", PullPolicy::Always).await;
    assert_eq!(reason, "InvalidImageName");
    assert!(message.contains("invalid reference format"), "{message}");
    let (reason, message) = failure("hello:1", PullPolicy::Never).await;
    assert_eq!(
        (reason, message.as_str()),
        ("ErrImageNeverPull", "container image \"hello:1\" is not present with pull policy of Never")
    );
    let (reason, message) = failure("hello:1", PullPolicy::IfNotPresent).await;
    assert_eq!((reason, message.as_str()), ("ErrImagePull", "hello:1: not found in the cluster's registry"));
    shelf.is_gone.store(true, Ordering::Relaxed);
    let (reason, message) = failure("hello:1", PullPolicy::IfNotPresent).await;
    assert_eq!(reason, "ErrImagePull");
    assert!(message.contains("cannot be reached: no server is connected"), "{message}");
}

#[tokio::test]
async fn a_registry_that_sends_other_bytes_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let digest = shelf.push("hello", "1", &module(1));
    let module_digest = Digest::of(&module(1));
    for content in [module(2), [module(1), module(1)].concat(), b"\0asm".to_vec()] {
        shelf.put(&format!("/v2/hello/blobs/{module_digest}"), &content);
        let error = store.image("hello:1", PullPolicy::Always, &Keyring::default()).await.expect_err("no image");
        assert!(matches!(error, PullError::Broken { .. }), "{error}");
    }
    shelf.put(&format!("/v2/hello/manifests/{digest}"), b"{\"schemaVersion\":2}");
    let error =
        store.image(&format!("hello@{digest}"), PullPolicy::Always, &Keyring::default()).await.expect_err("no image");
    assert!(error.to_string().contains("in place of"), "{error}");
    // Nothing of all this stays.
    assert!(store.image("hello:1", PullPolicy::Never, &Keyring::default()).await.is_err());
    shelf.push("hello", "1", &module(1));
    assert!(store.image("hello:1", PullPolicy::Always, &Keyring::default()).await.is_ok());
}

#[tokio::test]
async fn an_index_leads_to_its_wasm_image_and_a_container_image_is_named_for_what_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let wasm = shelf.push("hello", "wasm", &module(1));
    let entry = |digest: &Digest, os: &str, architecture: &str| json!({"mediaType": media::MANIFEST, "digest": digest.to_string(), "size": 1, "platform": {"os": os, "architecture": architecture}});
    let other = Digest::of(b"other");
    let index =
        json!({"schemaVersion": 2, "manifests": [entry(&other, "linux", "amd64"), entry(&wasm, "wasip2", "wasm")]})
            .to_string();
    shelf.put("/v2/hello/manifests/1", index.as_bytes());
    let image = store.image("hello:1", PullPolicy::Always, &Keyring::default()).await.expect("an image");
    assert_eq!((image.digest, image.module), (Digest::of(index.as_bytes()), Digest::of(&module(1))));

    let config = json!({"os": "linux", "architecture": "amd64", "config": {}}).to_string();
    let config_digest = Digest::of(config.as_bytes());
    shelf.put(&format!("/v2/nginx/blobs/{config_digest}"), config.as_bytes());
    let descriptor =
        |media_type: &str, digest: &Digest| json!({"mediaType": media_type, "digest": digest.to_string(), "size": 9});
    let layers = [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &other)];
    let manifest =
        json!({"schemaVersion": 2, "config": descriptor(media::IMAGE_CONFIG, &config_digest), "layers": layers});
    shelf.put("/v2/nginx/manifests/latest", manifest.to_string().as_bytes());
    let error = store.image("nginx", PullPolicy::Always, &Keyring::default()).await.expect_err("no image");
    assert_eq!(error.to_string(), "nginx:latest: the image is not WebAssembly: it is for linux/amd64");
}

#[tokio::test]
async fn another_registry_on_this_machine_is_asked_by_plain_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, remote) = (Arc::new(Shelf::default()), Arc::new(Shelf::default()));
    let store = store(folder.path(), &cluster);
    let port = listen(remote.clone()).await;
    let digest = remote.push("team/hello", "1", &module(7));
    let image = store
        .image(&format!("localhost:{port}/team/hello:1"), PullPolicy::IfNotPresent, &Keyring::default())
        .await
        .expect("an image");
    assert_eq!(image.image_id(), format!("localhost:{port}/team/hello@{digest}"));
    assert_eq!(std::fs::read(&image.path).expect("a file"), module(7));
    let error = store
        .image(&format!("localhost:{port}/nothing:1"), PullPolicy::IfNotPresent, &Keyring::default())
        .await
        .expect_err("no image");
    assert!(matches!(error, PullError::NotFound { .. }), "{error}");
    let error = store
        .image("localhost:1/nothing:1", PullPolicy::IfNotPresent, &Keyring::default())
        .await
        .expect_err("no image");
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn what_is_here_is_listed_and_what_is_removed_is_fetched_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = Arc::new(store(folder.path(), &shelf));
    let (first, second) = (shelf.push("hello", "1", &module(1)), shelf.push("other", "1", &module(2)));
    shelf.push("hello", "2", &module(1));
    for name in ["hello:1", "hello:2", "other:1"] {
        store.image(name, PullPolicy::IfNotPresent, &Keyring::default()).await.expect("an image");
    }
    let mut listed = store.list().await.expect("a list");
    listed.sort_by(|a, b| a.references.cmp(&b.references));
    let told: Vec<_> =
        listed.iter().map(|one| (&one.module, one.size_bytes, &one.references, &one.image_ids)).collect();
    assert_eq!(
        told,
        [
            (
                &Digest::of(&module(1)),
                module(1).len() as u64,
                &vec!["hello:1".to_string(), "hello:2".to_string()],
                &vec![format!("hello@{first}")]
            ),
            (
                &Digest::of(&module(2)),
                module(2).len() as u64,
                &vec!["other:1".to_string()],
                &vec![format!("other@{second}")]
            ),
        ]
    );
    store.remove(&Digest::of(&module(1))).await.expect("removed");
    assert_eq!(store.list().await.expect("a list").len(), 1);
    assert!(store.image("hello:1", PullPolicy::Never, &Keyring::default()).await.is_err());
    assert!(store.image("other:1", PullPolicy::Never, &Keyring::default()).await.is_ok());
    let again = store.image("hello:1", PullPolicy::IfNotPresent, &Keyring::default()).await.expect("an image");
    assert!(again.was_fetched);
}
