//! Where a request goes: the registry, our own API, or Kubernetes'. The same for the TCP port and for the link.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use shoal_apiserver::Peer;
use shoal_link::http::Body;

use crate::internal::{self, Caller};
use crate::registry_access;
use crate::server::Core;

/// Answers one request from `peer`.
pub(crate) fn answer(core: Arc<Core>, request: Request<Body>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
    let path = request.uri().path();
    if path == "/v2" || path.starts_with("/v2/") {
        return Box::pin(async move {
            match registry_access::access(&core.api, &peer, request.headers(), request.uri().path()).await {
                Ok(access) => core.registry.handle(request, access).await,
                Err(refused) => refused,
            }
        });
    }
    if path.starts_with(internal::PREFIX) {
        return Box::pin(internal::answer(core, request, Caller::of(&peer)));
    }
    let api = core.api.clone();
    Box::pin(async move { api.handle(request, peer).await })
}
