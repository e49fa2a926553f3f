//! A registry in memory, by itself or served by plain HTTP.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::json;
use shoal_images::{Body, BoxError, ClusterRegistry, Digest, ImageStore, artifact};

/// A registry in memory: what is under each path.
#[derive(Default)]
pub struct Shelf {
    /// What is there.
    pub contents: Mutex<BTreeMap<String, Bytes>>,
    /// Nobody answers.
    pub is_gone: AtomicBool,
    /// How many blobs were asked for.
    pub blobs_sent: AtomicUsize,
    /// After how many bytes a blob breaks off, if it does.
    pub breaks_after: Mutex<Option<usize>>,
    /// Whether a blob may be asked for from a byte on.
    pub has_no_ranges: AtomicBool,
    /// The bytes of blobs that were sent.
    pub bytes_sent: AtomicUsize,
    /// Who is let in.
    pub door: Door,
}

/// Who is let in by HTTP.
#[derive(Default)]
pub enum Door {
    /// Everybody.
    #[default]
    Open,
    /// Who shows one of these as `Authorization: Basic …`.
    Basic(&'static [&'static str]),
    /// Who shows the token that the path `/token` gives for this Basic authorization.
    Bearer(&'static str),
}

/// What `/token` gives.
const TOKEN: &str = "a-token";

impl Shelf {
    pub fn put(&self, path: &str, content: &[u8]) {
        self.contents.lock().expect("a lock").insert(path.to_string(), Bytes::copy_from_slice(content));
    }

    /// Stores a module as `push` would; answers the digest of its manifest.
    pub fn push(&self, name: &str, tag: &str, wasm: &[u8]) -> Digest {
        let made = artifact(wasm).expect("an artifact");
        self.put(&format!("/v2/{name}/blobs/{}", made.module_digest), wasm);
        self.put(&format!("/v2/{name}/blobs/{}", made.config_digest), &made.config);
        for version in [tag, &made.manifest_digest.to_string()] {
            self.put(&format!("/v2/{name}/manifests/{version}"), &made.manifest);
        }
        made.manifest_digest
    }

    pub fn answer(&self, path: &str) -> Response<Body> {
        let content = self.contents.lock().expect("a lock").get(path).cloned();
        if path.contains("/blobs/") {
            self.blobs_sent.fetch_add(1, Ordering::Relaxed);
        }
        let (status, content) =
            content.map_or((StatusCode::NOT_FOUND, Bytes::new()), |content| (StatusCode::OK, content));
        let mut response = Response::new(Full::new(content).map_err(|never| match never {}).boxed());
        *response.status_mut() = status;
        response
    }
}

impl Shelf {
    /// [`Shelf::answer`] for a request by HTTP, if the door is open to it.
    fn answer_http(&self, request: &Request<hyper::body::Incoming>, port: u16) -> Response<Body> {
        let path = request.uri().path();
        if self.is_gone.load(Ordering::Relaxed) {
            let mut response = self.answer("");
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (is_let_in, challenge) = match &self.door {
            Door::Open => (true, String::new()),
            Door::Basic(logins) => (logins.contains(&shown), "Basic realm=\"shelf\"".to_string()),
            Door::Bearer(login) if path == "/token" => (shown == *login, "Basic realm=\"tokens\"".to_string()),
            Door::Bearer(_) => {
                let realm = format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"shelf\"");
                (shown == format!("Bearer {TOKEN}"), realm)
            }
        };
        let body = |text: String| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
        if !is_let_in {
            let problem = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
            let refused = Response::builder().status(StatusCode::UNAUTHORIZED).header("www-authenticate", challenge);
            return refused.body(body(problem.to_string())).expect("a response");
        }
        match path {
            "/v2/" => Response::new(body("{}".to_string())),
            "/token" => Response::new(body(json!({ "token": TOKEN }).to_string())),
            _ => self.answer(path),
        }
    }
}

impl Shelf {
    /// [`Shelf::answer`] for a blob from this byte on, which may break off.
    fn part(&self, path: &str, from: u64) -> Response<Body> {
        let content = self.contents.lock().expect("a lock").get(path).cloned();
        let Some(content) = content.filter(|_| path.contains("/blobs/")) else { return self.answer(path) };
        self.blobs_sent.fetch_add(1, Ordering::Relaxed);
        let from = if self.has_no_ranges.load(Ordering::Relaxed) { 0 } else { usize::try_from(from).expect("a size") };
        let rest = content.slice(from..);
        let breaks_after = *self.breaks_after.lock().expect("a lock");
        let sent = rest.slice(..breaks_after.unwrap_or(rest.len()).min(rest.len()));
        self.bytes_sent.fetch_add(sent.len(), Ordering::Relaxed);
        let broken = (sent.len() < rest.len()).then(|| Err("the link is gone".into()));
        let frames = std::iter::once(Ok(Frame::data(sent))).chain(broken);
        let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
        if from > 0 {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}

impl ClusterRegistry for Shelf {
    fn get(&self, path: &str, accept: &str, from: u64) -> BoxFuture<'_, Result<Response<Body>, BoxError>> {
        assert!(!accept.is_empty());
        let path = path.to_string();
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.is_gone.load(Ordering::Relaxed) {
                Err("no server is connected".into())
            } else {
                Ok(self.part(&path, from))
            }
        })
    }
}

/// The least module, with some bytes of its own.
pub fn module(content: u8) -> Vec<u8> {
    [b"\0asm\x01\0\0\0\x00\x03\x01x".as_slice(), &[content]].concat()
}

pub fn store(folder: &Path, shelf: &Arc<Shelf>) -> ImageStore {
    ImageStore::open(folder, shelf.clone()).expect("a store")
}

/// Serves `shelf` by plain HTTP on this machine; answers its port.
pub async fn listen(shelf: Arc<Shelf>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shelf = shelf.clone();
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = shelf.answer_http(&request, port);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
        }
    });
    port
}
