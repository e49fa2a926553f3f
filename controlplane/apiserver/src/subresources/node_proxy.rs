//! `nodes/proxy`: a node's own HTTP API, through this server, for those who may use it.

use http::{Method, Request, Response};
use shoal_api::Status;

use crate::handler::Call;
use crate::verbs::get;
use crate::{Body, errors};

/// Passes the request on to the node's agent.
pub(crate) async fn answer(call: &Call, method: &Method, body: Body) -> Result<Response<Body>, Status> {
    call.barrier().await?;
    let name = call.name()?;
    get::current(call, name)?;
    let request = Request::builder()
        .method(method)
        .uri(format!("/{}", call.target.rest.join("/")))
        .body(body)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    call.shared.config.node_requests.send(name, request).await.map_err(|error| errors::node(&error))
}
