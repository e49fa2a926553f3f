//! Where a request goes: the registry, our own API, or Kubernetes'. The same for the TCP port and for the link.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use shoal_apiserver::Peer;
use shoal_link::http::Body;
use shoal_registry::{Access, Registry};

use crate::internal::{self, Caller};
use crate::server::Core;

/// Answers one request from `peer`.
pub(crate) fn answer(core: Arc<Core>, request: Request<Body>, peer: Peer) -> BoxFuture<'static, Response<Body>> {
    let path = request.uri().path();
    if path == "/v2" || path.starts_with("/v2/") {
        let registry = core.registry.clone();
        return Box::pin(async move { answer_registry(&registry, request, &Caller::of(&peer)).await });
    }
    if path.starts_with(internal::PREFIX) {
        return Box::pin(internal::answer(core, request, Caller::of(&peer)));
    }
    let api = core.api.clone();
    Box::pin(async move { api.handle(request, peer).await })
}

async fn answer_registry(registry: &Registry, request: Request<Body>, caller: &Caller) -> Response<Body> {
    if caller.name.is_empty() {
        return unauthorized();
    }
    let access = if caller.is_admin() { Access::Push } else { Access::Pull };
    registry.handle(request, access).await
}

/// In the registry API's own form, so that its clients show the text.
fn unauthorized() -> Response<Body> {
    let text = r#"{"errors":[{"code":"UNAUTHORIZED","message":"a client certificate of this cluster is needed"}]}"#;
    let mut response = Response::new(shoal_client::bytes_body(text));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
