//! Uploads: a session collects bytes in one or several requests, and ends as a blob whose digest was checked.
//!
//! A session lives on the server where it began, and is dropped when that server stops: clients begin again. Docker sends
//! POST, one PATCH without Content-Range, PUT; oras and crane POST and PUT, or one POST with the digest; others send PATCHes
//! with Content-Range.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use shoal_images::blobs::{BlobWriter, Digest};
use shoal_link::http::Body;
use tokio::sync::Mutex;

use crate::error::Problem;
use crate::{Registry, limits, respond};

/// The open sessions of this server.
#[derive(Default)]
pub(crate) struct Uploads {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

struct Session {
    repository: String,
    state: Mutex<State>,
}

struct State {
    writer: Option<BlobWriter>,
    received: u64,
    touched: Instant,
}

impl Uploads {
    async fn open(&self, repository: &str, writer: BlobWriter) -> Result<String, Problem> {
        let mut sessions = self.sessions.lock().await;
        if sessions.len() >= limits::UPLOADS {
            sessions.retain(|_, session| !session.is_idle());
        }
        if sessions.len() >= limits::UPLOADS {
            return Err(Problem::too_many_uploads());
        }
        let id = uuid::Uuid::new_v4().to_string();
        let state = Mutex::new(State { writer: Some(writer), received: 0, touched: Instant::now() });
        sessions.insert(id.clone(), Arc::new(Session { repository: repository.to_string(), state }));
        Ok(id)
    }

    async fn find(&self, repository: &str, id: &str) -> Result<Arc<Session>, Problem> {
        let sessions = self.sessions.lock().await;
        let session = sessions.get(id).filter(|session| session.repository == repository);
        session.cloned().ok_or_else(Problem::upload_unknown)
    }

    async fn close(&self, id: &str) {
        self.sessions.lock().await.remove(id);
    }
}

impl Session {
    /// Whether nobody holds the session and nobody touched it for long.
    fn is_idle(&self) -> bool {
        self.state.try_lock().is_ok_and(|state| state.touched.elapsed() > limits::UPLOAD_IDLE)
    }
}

impl Registry {
    /// `POST …/blobs/uploads/`: mounts, stores at once, or begins a session.
    pub(crate) async fn start_upload(&self, name: &str, request: Request<Body>) -> Result<Response<Body>, Problem> {
        if let Some(text) = respond::query(request.uri(), "mount") {
            let digest = Digest::parse(&text).map_err(|error| Problem::digest_invalid(error.to_string()))?;
            // Blobs belong to the whole registry, so a mount is a look.
            if self.local_blob(&digest).await?.is_some() && self.hold(&digest)? {
                self.replicate(&digest).await?;
                return Ok(stored(name, &digest));
            }
        }
        let mut writer = self.blobs.writer().await.map_err(|error| Problem::internal("begin an upload", &error))?;
        if let Some(text) = respond::query(request.uri(), "digest") {
            let digest = Digest::parse(&text).map_err(|error| Problem::digest_invalid(error.to_string()))?;
            append_body(&mut writer, request.into_body()).await?;
            return self.store(name, writer, &digest).await;
        }
        let session = self.uploads.open(name, writer).await?;
        Ok(accepted(name, &session, 0))
    }

    /// `PATCH`, `PUT`, `GET` and `DELETE` of a session.
    pub(crate) async fn upload(&self, name: &str, id: &str, request: Request<Body>) -> Result<Response<Body>, Problem> {
        let session = self.uploads.find(name, id).await?;
        let mut state = session.state.lock().await;
        state.touched = Instant::now();
        match *request.method() {
            Method::GET => {
                let mut response = accepted(name, id, state.received);
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            Method::DELETE => {
                state.writer = None;
                self.uploads.close(id).await;
                Ok(respond::empty(StatusCode::NO_CONTENT).body(respond::no_body()).expect("the parts are valid"))
            }
            Method::PATCH => {
                check_start(request.headers(), state.received)?;
                self.receive(id, &mut state, request.into_body()).await?;
                Ok(accepted(name, id, state.received))
            }
            Method::PUT => {
                let text = respond::query(request.uri(), "digest").ok_or_else(|| {
                    Problem::digest_invalid("the query must name the blob's digest: ?digest=sha256:…")
                })?;
                let digest = Digest::parse(&text).map_err(|error| Problem::digest_invalid(error.to_string()))?;
                check_start(request.headers(), state.received)?;
                self.receive(id, &mut state, request.into_body()).await?;
                self.uploads.close(id).await;
                let writer = state.writer.take().ok_or_else(Problem::upload_unknown)?;
                self.store(name, writer, &digest).await
            }
            _ => Err(Problem::unsupported("an upload takes GET, PATCH, PUT and DELETE")),
        }
    }

    /// Appends `body`; a session whose body broke off is ended, because its bytes are no longer what the client thinks.
    async fn receive(&self, id: &str, state: &mut State, body: Body) -> Result<(), Problem> {
        let mut writer = state.writer.take().ok_or_else(Problem::upload_unknown)?;
        match append_body(&mut writer, body).await {
            Ok(added) => {
                state.received += added;
                state.writer = Some(writer);
                Ok(())
            }
            Err(problem) => {
                self.uploads.close(id).await;
                Err(problem)
            }
        }
    }

    async fn store(&self, name: &str, writer: BlobWriter, digest: &Digest) -> Result<Response<Body>, Problem> {
        writer.finish(digest).await.map_err(|error| Problem::digest_invalid(error.to_string()))?;
        self.replicate(digest).await?;
        Ok(stored(name, digest))
    }
}

/// Appends all of `body` to `writer`; answers how many bytes that were.
pub(crate) async fn append_body(writer: &mut BlobWriter, mut body: Body) -> Result<u64, Problem> {
    let mut added = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::upload_invalid(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        added += data.len() as u64;
        if added > limits::BLOB_BYTES {
            return Err(Problem::too_large(format!("a blob may have {} bytes at most", limits::BLOB_BYTES)));
        }
        writer.write(&data).await.map_err(|error| Problem::internal("write an upload", &error))?;
    }
    Ok(added)
}

/// A Content-Range, when one is given, must begin where the last one ended.
fn check_start(headers: &HeaderMap, received: u64) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default().trim_start_matches("bytes").trim();
    let start = text.split_once('-').and_then(|(start, _)| start.parse::<u64>().ok());
    if start == Some(received) {
        Ok(())
    } else {
        Err(Problem::range_not_satisfiable(format!(
            "the upload has {received} bytes, so the next range begins there, not at {text:?}"
        )))
    }
}

fn accepted(name: &str, id: &str, received: u64) -> Response<Body> {
    respond::empty(StatusCode::ACCEPTED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}"))
        .header("docker-upload-uuid", id)
        .header(header::RANGE, format!("0-{}", received.saturating_sub(1)))
        .body(respond::no_body())
        .expect("the parts are valid")
}

fn stored(name: &str, digest: &Digest) -> Response<Body> {
    respond::empty(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .header("docker-content-digest", digest.to_string())
        .body(respond::no_body())
        .expect("the parts are valid")
}
