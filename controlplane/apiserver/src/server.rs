//! The API server as a value: what it holds, and the one entry for a request.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use http::{Method, Request, Response};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::rbac_cache::RbacCache;
use crate::{Body, Config, Peer, body, handler, limits};

/// Kubernetes' API over a store. Cloning is cheap; every clone is the same server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) shared: Arc<Shared>,
}

/// What every request may use.
pub(crate) struct Shared {
    pub config: Config,
    pub rbac: RbacCache,
    /// Requests in work; see [`limits::IN_FLIGHT`].
    pub in_flight: Arc<Semaphore>,
    /// Watches and followed logs; see [`limits::LONG_RUNNING`].
    pub long_running: Arc<Semaphore>,
    /// The watches' tasks: each ends when its client is gone, its time is over, or `stop` is cancelled.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl ApiServer {
    /// An API server over `config.store`. It does nothing until it is asked.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let rbac = RbacCache::new(config.store.clone());
        Self {
            shared: Arc::new(Shared {
                config,
                rbac,
                in_flight: Arc::new(Semaphore::new(limits::IN_FLIGHT)),
                long_running: Arc::new(Semaphore::new(limits::LONG_RUNNING)),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Answers one request from `peer`; every failure is an answer, too.
    ///
    /// Cancel safety: dropping the future abandons the request; a write that was proposed may still be committed.
    pub fn handle(&self, request: Request<Body>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let audit_id = Uuid::new_v4().to_string();
            let span =
                tracing::debug_span!("request", method = %request.method(), path = request.uri().path(), audit_id);
            let head = request.method() == Method::HEAD;
            let mut response = handler::answer(&shared, request, &peer).instrument(span).await;
            if let Ok(value) = HeaderValue::from_str(&audit_id) {
                response.headers_mut().insert("audit-id", value);
            }
            if head {
                *response.body_mut() = body::empty();
            }
            response
        })
    }

    /// Ends every watch and followed log, in order that their connections can be drained; then waits for them.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}
