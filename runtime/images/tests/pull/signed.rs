//! Images whose signatures are wanted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use shoal_images::{Algorithm, Digest, Image, ImageStore, Keyring, PublicKey, PullError, PullPolicy, media};
use shoal_tests::signing::{
    self, PAYLOAD_TYPE, SIGN_PREDICATE, STATEMENT_TYPE, Signer, bundle_manifest, envelope_bundle, message_bundle,
    simple_manifest, statement,
};

use crate::shelf::{Door, Shelf, listen, module, store};

fn public(signer: &Signer) -> PublicKey {
    let algorithm = if matches!(signer, Signer::P256(_)) { Algorithm::EcdsaP256 } else { Algorithm::Ed25519 };
    PublicKey::new(algorithm, signer.public_bytes().to_vec())
}

/// Signs an image in the first of cosign's forms, in place of its signatures before.
fn sign(shelf: &Shelf, name: &str, image: &Digest, signers: &[&Signer]) {
    let payload = signing::payload(&image.to_string(), PAYLOAD_TYPE);
    let signatures: Vec<Vec<u8>> = signers.iter().map(|signer| signer.sign(&payload)).collect();
    let layers: Vec<(&[u8], &[u8])> = signatures.iter().map(|signature| (&payload[..], &signature[..])).collect();
    shelf.put(&format!("/v2/{name}/blobs/{}", Digest::of(&payload)), &payload);
    let tag = signing::simple_tag(&image.to_string());
    shelf.put(&format!("/v2/{name}/manifests/{tag}"), &simple_manifest(&layers));
}

/// Puts a bundle about an image into its repository; answers the list of referrers, which is put nowhere.
fn put_bundle(shelf: &Shelf, name: &str, image: &Digest, bundle: &serde_json::Value) -> String {
    let (bundle, of) =
        (bundle.to_string(), shelf.contents.lock().expect("a lock")[&manifest_path(name, image)].clone());
    let manifest = bundle_manifest(&of, bundle.as_bytes());
    let digest = Digest::of(&manifest);
    shelf.put(&format!("/v2/{name}/blobs/{}", Digest::of(bundle.as_bytes())), bundle.as_bytes());
    shelf.put(&manifest_path(name, &digest), &manifest);
    let row = |kind: &str, digest: &Digest| json!({"mediaType": media::MANIFEST, "artifactType": kind, "digest": digest.to_string(), "size": manifest.len()});
    let rows = [row("application/spdx+json", &Digest::of(b"bill")), row(media::BUNDLE, &digest)];
    json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": rows}).to_string()
}

fn manifest_path(name: &str, image: &Digest) -> String {
    format!("/v2/{name}/manifests/{image}")
}

fn cosign_bundle(signer: &Signer, image: &Digest) -> serde_json::Value {
    envelope_bundle(signer, STATEMENT_TYPE, &statement(&image.to_string(), SIGN_PREDICATE))
}

async fn pull(store: &ImageStore, name: &str) -> Image {
    store.image(name, PullPolicy::IfNotPresent, &Keyring::default()).await.expect("an image")
}

async fn verify(store: &ImageStore, image: &Image, signers: &[&Signer]) -> Result<String, PullError> {
    let keys: Vec<PublicKey> = signers.iter().map(|signer| public(signer)).collect();
    store.verify(image, &keys, &Keyring::default()).await
}

fn reason(result: Result<String, PullError>) -> String {
    match result {
        Err(error @ PullError::Unsigned { .. }) => {
            assert_eq!(error.reason(), "SignatureValidationFailed");
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_waits_for_a_signature_by_any_of_the_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let (mine, other) = (Signer::p256(), Signer::ed25519());
    let digest = shelf.push("team/hello", "1", &module(1));
    let image = pull(&store, "team/hello:1").await;
    let unsigned = reason(verify(&store, &image, &[&mine]).await);
    assert!(unsigned.contains("team/hello:1") && unsigned.contains(&digest.to_string()), "{unsigned}");
    assert!(unsigned.ends_with("no signature of it was found in its registry"), "{unsigned}");
    sign(&shelf, "team/hello", &digest, &[&other]);
    let wrong = reason(verify(&store, &image, &[&mine]).await);
    assert!(wrong.ends_with("one is by none of the keys that are trusted"), "{wrong}");
    sign(&shelf, "team/hello", &digest, &[&mine, &other]);
    assert_eq!(verify(&store, &image, &[&mine]).await, Ok(public(&mine).fingerprint()));
    assert!(verify(&store, &image, &[]).await.is_err(), "no keys are none that would do");
}

#[tokio::test]
async fn what_was_verified_stays_so_without_a_registry_and_for_its_key_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let (mine, other) = (Signer::p256(), Signer::p256());
    let digest = shelf.push("hello", "1", &module(1));
    sign(&shelf, "hello", &digest, &[&mine]);
    let first = store(folder.path(), &shelf);
    let image = pull(&first, "hello:1").await;
    verify(&first, &image, &[&mine]).await.expect("it is signed");
    // A pull that finds the same image again forgets nothing.
    first.image("hello:1", PullPolicy::Always, &Keyring::default()).await.expect("an image");
    shelf.is_gone.store(true, Ordering::Relaxed);
    let next = store(folder.path(), &shelf);
    let image = pull(&next, "hello:1").await;
    assert_eq!(verify(&next, &image, &[&other, &mine]).await, Ok(public(&mine).fingerprint()));
    let error = verify(&next, &image, &[&other]).await.expect_err("nobody says that it is signed");
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_tag_that_moved_on_is_not_signed_by_what_it_stood_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let mine = Signer::p256();
    let first = shelf.push("hello", "1", &module(1));
    sign(&shelf, "hello", &first, &[&mine]);
    let before = pull(&store, "hello:1").await;
    verify(&store, &before, &[&mine]).await.expect("it is signed");
    let second = shelf.push("hello", "1", &module(2));
    let image = store.image("hello:1", PullPolicy::Always, &Keyring::default()).await.expect("an image");
    assert_eq!(image.digest, second);
    reason(verify(&store, &image, &[&mine]).await);
    // The signatures of the one under the tag of the other.
    let signatures = shelf.contents.lock().expect("a lock")
        [&format!("/v2/hello/manifests/{}", signing::simple_tag(&first.to_string()))]
        .clone();
    shelf.put(&format!("/v2/hello/manifests/{}", signing::simple_tag(&second.to_string())), &signatures);
    let wrong = reason(verify(&store, &image, &[&mine]).await);
    assert!(wrong.ends_with(&format!("one is for another image, {first}")), "{wrong}");
}

#[tokio::test]
async fn a_bundle_that_refers_to_the_image_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let mine = Signer::p256();
    for (name, is_envelope) in [("a", true), ("b", false)] {
        let digest = shelf.push(name, "1", &module(1));
        let image = pull(&store, &format!("{name}:1")).await;
        reason(verify(&store, &image, &[&mine]).await);
        let manifest = shelf.contents.lock().expect("a lock")[&manifest_path(name, &digest)].clone();
        let bundle = if is_envelope { cosign_bundle(&mine, &digest) } else { message_bundle(&mine, &manifest) };
        let referrers = put_bundle(&shelf, name, &digest, &bundle);
        shelf.put(&format!("/v2/{name}/referrers/{digest}"), referrers.as_bytes());
        assert_eq!(verify(&store, &image, &[&mine]).await, Ok(public(&mine).fingerprint()), "{name}");
        let wrong = reason(verify(&store, &image, &[&Signer::p256()]).await);
        assert!(wrong.ends_with("one is by none of the keys that are trusted"), "{wrong}");
    }
}

#[tokio::test]
async fn of_an_index_its_own_signature_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let mine = Signer::p256();
    let inner = shelf.push("hello", "wasm", &module(1));
    let platform = json!({"os": "wasip2", "architecture": "wasm"});
    let entry = json!({"mediaType": media::MANIFEST, "digest": inner.to_string(), "size": 1, "platform": platform});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    shelf.put("/v2/hello/manifests/1", index.as_bytes());
    sign(&shelf, "hello", &inner, &[&mine]);
    let image = pull(&store, "hello:1").await;
    reason(verify(&store, &image, &[&mine]).await);
    let by_digest = pull(&store, &format!("hello@{inner}")).await;
    verify(&store, &by_digest, &[&mine]).await.expect("it is signed");
    sign(&shelf, "hello", &Digest::of(index.as_bytes()), &[&mine]);
    verify(&store, &image, &[&mine]).await.expect("it is signed");
}

#[tokio::test]
async fn what_a_registry_has_lost_or_garbled_hinders_no_other_signature() {
    let folder = tempfile::tempdir().expect("a folder");
    let shelf = Arc::new(Shelf::default());
    let store = store(folder.path(), &shelf);
    let mine = Signer::p256();
    let digest = shelf.push("hello", "1", &module(1));
    let image = pull(&store, "hello:1").await;
    let tag = format!("/v2/hello/manifests/{}", signing::simple_tag(&digest.to_string()));
    let payload = signing::payload(&digest.to_string(), PAYLOAD_TYPE);
    shelf.put(&tag, &simple_manifest(&[(&payload, &mine.sign(&payload))]));
    let lost = reason(verify(&store, &image, &[&mine]).await);
    assert!(lost.contains("the registry has lost a part of it"), "{lost}");
    shelf.put(&format!("/v2/hello/blobs/{}", Digest::of(&payload)), b"{}");
    let other = reason(verify(&store, &image, &[&mine]).await);
    assert!(other.contains("sent other bytes in place of"), "{other}");
    shelf.put(&tag, b"junk");
    shelf.put(&format!("/v2/hello/referrers/{digest}"), b"junk");
    let junk = reason(verify(&store, &image, &[&mine]).await);
    assert!(junk.contains("the manifest of signatures") && junk.contains("the list of referrers"), "{junk}");
    let referrers = put_bundle(&shelf, "hello", &digest, &cosign_bundle(&mine, &digest));
    shelf.put(&format!("/v2/hello/referrers/{digest}"), referrers.as_bytes());
    verify(&store, &image, &[&mine]).await.expect("it is signed");
}

#[tokio::test]
async fn signatures_in_another_registry_are_had_with_the_pods_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path(), &Arc::default());
    let mine = Signer::p256();
    // `me:secret`
    for (door, is_bundle) in [(Door::Basic(&["Basic bWU6c2VjcmV0"]), false), (Door::Bearer("Basic bWU6c2VjcmV0"), true)]
    {
        let shelf = Arc::new(Shelf { door, ..Shelf::default() });
        let digest = shelf.push("team/hello", "1", &module(3));
        if is_bundle {
            // A registry without a list of referrers has it under a tag.
            let referrers = put_bundle(&shelf, "team/hello", &digest, &cosign_bundle(&mine, &digest));
            shelf.put(&format!("/v2/team/hello/manifests/sha256-{}", digest.hex()), referrers.as_bytes());
        } else {
            sign(&shelf, "team/hello", &digest, &[&mine]);
        }
        let host = format!("127.0.0.1:{}", listen(shelf).await);
        let keyring = |password: &str| {
            let mut keyring = Keyring::default();
            let config = json!({"auths": {host.as_str(): {"username": "me", "password": password}}});
            keyring.add_config(config.to_string().as_bytes()).expect("a configuration");
            keyring
        };
        let name = format!("{host}/team/hello:1");
        let image = store.image(&name, PullPolicy::Always, &keyring("secret")).await.expect("an image");
        let keys = [public(&mine)];
        for stranger in [Keyring::default(), keyring("wrong")] {
            let error = store.verify(&image, &keys, &stranger).await.expect_err("it is not theirs to see");
            assert!(matches!(error, PullError::Denied { .. }), "{error}");
        }
        assert_eq!(store.verify(&image, &keys, &keyring("secret")).await, Ok(keys[0].fingerprint()));
    }
}
