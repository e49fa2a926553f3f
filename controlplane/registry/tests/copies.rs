//! Where blobs are: on two servers before a push is acknowledged, back where they were lost, and gone when nothing names them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use shoal_images::Digest;
use shoal_link::http::Body;
use shoal_registry::{Access, BlobStore, Catalog, CatalogError, Copies, Peers, Registry};

/// The cluster's store.
#[derive(Default)]
struct Rows(Mutex<BTreeMap<String, Bytes>>);

impl Catalog for Rows {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Bytes>, CatalogError>> {
        Box::pin(async move { Ok(self.0.lock().expect("a lock").get(&key).cloned()) })
    }

    fn list(&self, prefix: String) -> BoxFuture<'_, Result<Vec<(String, Bytes)>, CatalogError>> {
        let rows = self.0.lock().expect("a lock").clone();
        Box::pin(async move { Ok(rows.into_iter().filter(|(key, _)| key.starts_with(&prefix)).collect()) })
    }

    fn write(&self, changes: Vec<(String, Option<Bytes>)>) -> BoxFuture<'_, Result<(), CatalogError>> {
        let mut rows = self.0.lock().expect("a lock");
        for (key, value) in changes {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Box::pin(async { Ok(()) })
    }
}

/// The one other server, if it answers.
#[derive(Default)]
struct Other {
    registry: OnceLock<Registry>,
    is_down: AtomicBool,
}

impl Other {
    async fn ask(&self, method: Method, digest: &str, content: Bytes) -> Option<Response<Body>> {
        let registry = self.registry.get().filter(|_| !self.is_down.load(Ordering::Relaxed))?;
        let request = Request::builder().method(method).uri(format!("/shoal/v1/blobs/{digest}")).body(body(content));
        Some(registry.handle_peer(request.expect("a request")).await)
    }
}

struct OtherOf(Arc<Other>);

impl Peers for OtherOf {
    fn fetch(&self, digest: String) -> BoxFuture<'_, Option<Response<Body>>> {
        Box::pin(async move {
            let response = self.0.ask(Method::GET, &digest, Bytes::new()).await?;
            (response.status() == StatusCode::OK).then_some(response)
        })
    }

    fn store(&self, digest: String, path: PathBuf) -> BoxFuture<'_, Copies> {
        Box::pin(async move {
            let content = Bytes::from(std::fs::read(path).expect("a file"));
            let mut answer = self.0.ask(Method::HEAD, &digest, Bytes::new()).await;
            if answer.as_ref().is_some_and(|response| response.status() == StatusCode::NOT_FOUND) {
                answer = self.0.ask(Method::PUT, &digest, content).await;
            }
            let is_stored = answer.is_some_and(|response| response.status().is_success());
            Copies { others: 1, stored: usize::from(is_stored) }
        })
    }
}

fn body(content: Bytes) -> Body {
    Full::new(content).map_err(|never| match never {}).boxed()
}

/// Two servers.
struct Pair {
    registries: [Registry; 2],
    folders: [tempfile::TempDir; 2],
    /// What each asks: the first's is the second.
    others: [Arc<Other>; 2],
}

fn pair() -> Pair {
    let catalog: Arc<dyn Catalog> = Arc::new(Rows::default());
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let others = [(); 2].map(|()| Arc::new(Other::default()));
    let registry = |place: usize| {
        let blobs = Arc::new(BlobStore::open(folders[place].path()).expect("a store"));
        Registry::new(blobs, catalog.clone(), Arc::new(OtherOf(others[place].clone())))
    };
    let registries = [registry(0), registry(1)];
    for place in 0..2 {
        assert!(others[place].registry.set(registries[1 - place].clone()).is_ok());
    }
    Pair { registries, folders, others }
}

impl Pair {
    /// Asks the first server.
    async fn send(&self, method: Method, path: &str, content: &[u8]) -> StatusCode {
        let request = Request::builder().method(method).uri(path).body(body(Bytes::copy_from_slice(content)));
        self.registries[0].handle(request.expect("a request"), Access::Push).await.status()
    }

    async fn push_blob(&self, content: &[u8]) -> StatusCode {
        let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(content));
        self.send(Method::POST, &path, content).await
    }

    async fn push_manifest(&self, tag: &str, content: &[u8]) -> StatusCode {
        self.send(Method::PUT, &format!("/v2/a/manifests/{tag}"), &manifest(content)).await
    }

    fn file(&self, place: usize, content: &[u8]) -> PathBuf {
        self.folders[place].path().join("sha256").join(Digest::of(content).hex())
    }

    fn are_here(&self, content: &[u8]) -> [bool; 2] {
        [0, 1].map(|place| self.file(place, content).exists())
    }

    async fn collect(&self, hours_later: u64) {
        let now = SystemTime::now() + Duration::from_secs(hours_later * 3600);
        for registry in &self.registries {
            registry.collect(now).await.expect("a round");
        }
    }
}

fn manifest(content: &[u8]) -> Vec<u8> {
    let layer =
        json!({"mediaType": "application/wasm", "digest": Digest::of(content).to_string(), "size": content.len()});
    json!({"schemaVersion": 2, "layers": [layer]}).to_string().into_bytes()
}

/// Over HTTP/2 a body would be sent, and clients break the connection off.
#[tokio::test]
async fn an_answer_to_head_has_no_body_even_if_it_is_an_error() {
    let pair = pair();
    for method in [Method::GET, Method::HEAD] {
        let request = Request::builder().method(&method).uri("/v2/app/manifests/none").body(body(Bytes::new()));
        let answer = pair.registries[0].handle(request.expect("a request"), Access::Push).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(text.is_empty(), method == Method::HEAD);
    }
}

#[tokio::test]
async fn a_push_is_acknowledged_when_it_is_on_two_servers() {
    let pair = pair();
    assert_eq!(pair.push_blob(b"both").await, StatusCode::CREATED);
    assert_eq!(pair.are_here(b"both"), [true, true]);
    pair.others[0].is_down.store(true, Ordering::Relaxed);
    assert_eq!(pair.push_blob(b"one").await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(pair.are_here(b"one"), [true, false]);
    // What a failed push left is on one server: neither a manifest nor a mount may rely on it alone.
    let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", Digest::of(b"one"));
    assert_eq!(pair.push_manifest("1", b"one").await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(pair.send(Method::POST, &mount, b"").await, StatusCode::INTERNAL_SERVER_ERROR);
    pair.others[0].is_down.store(false, Ordering::Relaxed);
    assert_eq!(pair.push_manifest("1", b"one").await, StatusCode::CREATED);
    assert_eq!(pair.are_here(b"one"), [true, true]);
    std::fs::remove_file(pair.file(1, b"one")).expect("it was there");
    assert_eq!(pair.send(Method::POST, &mount, b"").await, StatusCode::CREATED);
    assert_eq!(pair.are_here(b"one"), [true, true]);
}

#[tokio::test]
async fn a_server_that_lost_a_blob_has_it_again_when_asked_and_after_a_round() {
    let pair = pair();
    pair.push_blob(b"shell").await;
    assert_eq!(pair.push_manifest("1", b"shell").await, StatusCode::CREATED);
    std::fs::remove_file(pair.file(0, b"shell")).expect("it was there");
    let path = format!("/v2/a/blobs/{}", Digest::of(b"shell"));
    assert_eq!(pair.send(Method::GET, &path, b"").await, StatusCode::OK);
    assert_eq!(pair.are_here(b"shell"), [true, true]);
    std::fs::remove_file(pair.file(1, b"shell")).expect("it was there");
    pair.collect(0).await;
    assert_eq!(pair.are_here(b"shell"), [true, true]);
}

#[tokio::test]
async fn blobs_follow_their_manifests_after_a_while() {
    let pair = pair();
    for content in [b"kept".as_slice(), b"gone", b"untagged", b"loose"] {
        assert_eq!(pair.push_blob(content).await, StatusCode::CREATED);
    }
    let tagged: [(&str, &[u8]); 3] = [("1", b"kept"), ("2", b"gone"), ("3", b"untagged")];
    for (tag, content) in tagged {
        assert_eq!(pair.push_manifest(tag, content).await, StatusCode::CREATED);
    }
    let by_digest = format!("/v2/a/manifests/{}", Digest::of(&manifest(b"gone")));
    assert_eq!(pair.send(Method::DELETE, &by_digest, b"").await, StatusCode::ACCEPTED);
    assert_eq!(pair.send(Method::GET, "/v2/a/manifests/2", b"").await, StatusCode::NOT_FOUND);
    assert_eq!(pair.send(Method::DELETE, "/v2/a/manifests/3", b"").await, StatusCode::ACCEPTED);
    pair.collect(0).await;
    assert_eq!(pair.are_here(b"gone"), [true, true], "it is too young");
    pair.collect(2).await;
    let expected: [(&[u8], bool); 4] = [(b"kept", true), (b"untagged", true), (b"gone", false), (b"loose", false)];
    for (content, is_here) in expected {
        assert_eq!(pair.are_here(content), [is_here; 2], "{}", String::from_utf8_lossy(content));
    }
}

#[tokio::test]
async fn a_blob_that_a_push_has_just_looked_at_stays_on_every_server() {
    let pair = pair();
    pair.push_blob(b"seen").await;
    pair.push_blob(b"unseen").await;
    let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    for place in 0..2 {
        for content in [b"seen".as_slice(), b"unseen"] {
            let file = std::fs::File::options().append(true).open(pair.file(place, content)).expect("a file");
            file.set_modified(long_ago).expect("its time is set");
        }
    }
    let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", Digest::of(b"seen"));
    assert_eq!(pair.send(Method::POST, &mount, b"").await, StatusCode::CREATED);
    pair.collect(0).await;
    assert_eq!((pair.are_here(b"seen"), pair.are_here(b"unseen")), ([true; 2], [false; 2]));
}
