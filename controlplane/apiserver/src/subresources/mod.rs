//! What hangs below an object: one file for each subresource that is more than a part of the object.

mod binding;
mod eviction;
mod exec;
mod log;
mod node_proxy;
mod port_forward;
mod proxy;
mod scale;
mod streams;
mod token;

use http::{Method, Response};
use shoal_api::Status;

use crate::Body;
use crate::handler::{self, Call};
use crate::verbs;
use crate::verbs::update::Part;

/// Answers a request for a subresource.
pub(crate) async fn answer(
    call: Call,
    subresource: &str,
    method: &Method,
    body: Body,
) -> Result<Response<Body>, Status> {
    if call.resource.subresource(subresource).is_none() {
        return Err(Status::path_not_found());
    }
    match (subresource, call.target.verb) {
        ("status", "get") => verbs::get::answer(&call).await,
        ("status", "update") => verbs::update::answer(&call, body, Part::Status).await,
        ("status", "patch") => verbs::patch::answer(&call, body, Part::Status).await,
        ("ephemeralcontainers", "get") => verbs::get::answer(&call).await,
        ("ephemeralcontainers", "update") => verbs::update::answer(&call, body, Part::EphemeralContainers).await,
        ("ephemeralcontainers", "patch") => verbs::patch::answer(&call, body, Part::EphemeralContainers).await,
        ("finalize", "update") => verbs::update::answer(&call, body, Part::Finalize).await,
        ("scale", "get" | "update" | "patch") => scale::answer(&call, body).await,
        ("binding", "create") => binding::answer(&call, body).await,
        ("eviction", "create") => eviction::answer(&call, body).await,
        ("token", "create") => token::answer(&call, body).await,
        ("log", "get") => log::answer(&call).await,
        ("exec", "get" | "create") => exec::answer(call, "exec").await,
        ("attach", "get" | "create") => exec::answer(call, "attach").await,
        ("portforward", "get" | "create") => port_forward::answer(call).await,
        ("proxy", _) if call.resource.plural == "nodes" => node_proxy::answer(&call, method, body).await,
        ("proxy", _) => proxy::answer(&call, method, body).await,
        _ => Err(handler::not_allowed(&call, method)),
    }
}
