//! `nodes/proxy`: a node's own HTTP API, through this server, for those who may use it.

use http::{Method, Request, Response};
use shoal_api::Status;

use crate::handler::Call;
use crate::request::behind;
use crate::verbs::get;
use crate::{Body, errors};

/// How many segments of the path are before what is asked of the node: `/api/v1/nodes/N/proxy`.
const SEGMENTS: usize = 5;

/// Passes the request on to the node's agent.
pub(crate) async fn answer(call: &Call, method: &Method, body: Body) -> Result<Response<Body>, Status> {
    call.barrier().await?;
    let name = call.name()?;
    get::current(call, name)?;
    let path = behind(call.uri.path(), SEGMENTS);
    // Pods are asked by `pods/proxy` and by whom that is allowed.
    if path.starts_with("/proxy/") {
        return Err(Status::path_not_found());
    }
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{query}", if path.is_empty() { "/" } else { path }))
        .body(body)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    call.shared.config.node_requests.send(name, request).await.map_err(|error| errors::node(&error))
}
