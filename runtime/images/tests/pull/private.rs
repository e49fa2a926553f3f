//! Registries that want a password.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use shoal_images::{ImageStore, Keyring, PullError, PullPolicy};

use crate::shelf::{Door, Shelf, listen, module, store};

/// `me:secret` and `other:word`.
const ME: &str = "Basic bWU6c2VjcmV0";
const OTHER: &str = "Basic b3RoZXI6d29yZA==";

fn keyring(logins: &[(&str, &str, &str)]) -> Keyring {
    let mut keyring = Keyring::default();
    for (registry, username, password) in logins {
        let config = json!({"auths": {(*registry): {"username": username, "password": password}}});
        keyring.add_config(config.to_string().as_bytes()).expect("a configuration");
    }
    keyring
}

/// A registry behind `door` that has one image, and that image's name.
async fn registry(door: Door) -> (Arc<Shelf>, String) {
    let shelf = Arc::new(Shelf { door, ..Shelf::default() });
    shelf.push("team/hello", "1", &module(3));
    let port = listen(shelf.clone()).await;
    (shelf, format!("127.0.0.1:{port}/team/hello:1"))
}

fn empty_store() -> (tempfile::TempDir, ImageStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path(), &Arc::default());
    (folder, store)
}

async fn is_had(store: &ImageStore, image: &str, policy: PullPolicy, keyring: &Keyring) -> bool {
    match store.image(image, policy, keyring).await {
        Ok(image) => {
            assert_eq!(std::fs::read(&image.path).expect("a file"), module(3));
            true
        }
        Err(PullError::Denied { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_image_is_pulled_with_a_password_and_not_without() {
    for door in [Door::Basic(&[ME]), Door::Bearer(ME)] {
        let (_shelf, image) = registry(door).await;
        let host = image.split('/').next().expect("a host");
        let (_folder, store) = empty_store();
        let policy = PullPolicy::Always;
        assert!(!is_had(&store, &image, policy, &Keyring::default()).await);
        assert!(!is_had(&store, &image, policy, &keyring(&[(host, "me", "wrong")])).await);
        assert!(!is_had(&store, &image, policy, &keyring(&[("example.com", "me", "secret")])).await);
        assert!(is_had(&store, &image, policy, &keyring(&[(host, "me", "secret")])).await);
        // The next one is let in on nobody's token but their own.
        assert!(!is_had(&store, &image, policy, &Keyring::default()).await);
        assert!(!is_had(&store, &image, policy, &keyring(&[(host, "me", "wrong")])).await);
        let digest =
            store.image(&image, policy, &keyring(&[(host, "me", "secret")])).await.expect("an image").image_id();
        assert!(is_had(&store, &digest, policy, &keyring(&[(host, "me", "secret")])).await);
        assert!(!is_had(&store, &digest, policy, &Keyring::default()).await);
        // What is there is good enough for whoever does not ask for more.
        assert!(is_had(&store, &image, PullPolicy::IfNotPresent, &Keyring::default()).await);
    }
}

#[tokio::test]
async fn credentials_are_tried_one_after_the_other() {
    let (_shelf, image) = registry(Door::Basic(&[ME])).await;
    let host = image.split('/').next().expect("a host");
    let (_folder, store) = empty_store();
    let several = keyring(&[(host, "me", "old"), (host, "other", "word"), (host, "me", "secret"), (host, "x", "y")]);
    assert!(is_had(&store, &image, PullPolicy::Always, &several).await);
}

#[tokio::test]
async fn a_registry_that_is_gone_leaves_an_image_to_those_who_had_it() {
    let (shelf, image) = registry(Door::Basic(&[ME, OTHER])).await;
    let host = image.split('/').next().expect("a host");
    let (folder, first) = empty_store();
    for (user, password) in [("me", "secret"), ("other", "word")] {
        assert!(is_had(&first, &image, PullPolicy::Always, &keyring(&[(host, user, password)])).await);
    }
    shelf.is_gone.store(true, Ordering::Relaxed);
    let store = store(folder.path(), &Arc::default());
    for (user, password) in [("me", "secret"), ("other", "word")] {
        assert!(is_had(&store, &image, PullPolicy::Always, &keyring(&[(host, user, password)])).await);
    }
    for keyring in [Keyring::default(), keyring(&[(host, "me", "wrong")])] {
        let error = store.image(&image, PullPolicy::Always, &keyring).await.expect_err("it is not theirs");
        assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
    }
}
