//! What `pods/exec`, `pods/attach` and `pods/portforward` have in common: the pod, its node, and the client's change of protocol.

use futures_util::future::BoxFuture;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use shoal_api::Status;
use shoal_streams::websocket;
use tracing::Instrument;

use crate::config::NodeRequests;
use crate::handler::Call;
use crate::verbs::get;
use crate::{Body, body, errors, limits};

/// Where SPDY clients offer their protocols and read the answer.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What a client speaks from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket(&'static str),
    Spdy(&'static str),
}

/// The protocols that one subresource knows, the best first.
pub(crate) struct Protocols {
    pub websocket: &'static [&'static str],
    pub websocket_fallback: Option<&'static str>,
    pub spdy: &'static [&'static str],
}

/// The connection of a client, free of HTTP.
pub(crate) type ClientIo = TokioIo<Upgraded>;

/// A pod, and the node that runs it.
pub(crate) struct Place {
    pub pod: Value,
    pub node: String,
}

/// The pod that the call names, if it is on a node.
pub(crate) async fn place(call: &Call) -> Result<Place, Status> {
    call.barrier().await?;
    let name = call.name()?;
    let (pod, _) = get::current(call, name)?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(Place { pod, node })
}

/// The container that is meant: the one that is named, or the only one.
pub(crate) fn container(call: &Call, pod: &Value, name: &str) -> Result<String, Status> {
    let list = |field: &str| -> Vec<&str> {
        let containers = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array).into_iter().flatten();
        containers.filter_map(|container| container.get("name").and_then(Value::as_str)).collect()
    };
    let (main, init, ephemeral) = (list("containers"), list("initContainers"), list("ephemeralContainers"));
    match call.query.get("container").filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if [&main, &init, &ephemeral].iter().any(|list| list.contains(&wanted)) => Ok(wanted.to_owned()),
        Some(wanted) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        None => match main.as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => {
                let mut message =
                    format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
                for (kind, names) in [("init", init), ("ephemeral", ephemeral)] {
                    if !names.is_empty() {
                        message += &format!(" or one of the {kind} containers: [{}]", names.join(" "));
                    }
                }
                Err(Status::bad_request(message))
            }
        },
    }
}

/// Percent-encodes a query value.
pub(crate) fn encode(value: &str) -> String {
    value
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Asks a node for a stream: what `body` carries goes there, the answer's body comes back.
///
/// # Errors
/// The node's own refusal, or that it cannot be reached.
pub(crate) async fn ask_node(nodes: &dyn NodeRequests, node: &str, path: String, body: Body) -> Result<Body, Status> {
    let request = Request::post(path).body(body).map_err(|error| Status::bad_request(error.to_string()))?;
    let response = nodes.send(node, request).await.map_err(|error| errors::node(&error))?;
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK {
        return Ok(body);
    }
    let text = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
    let message = answer["message"].as_str().unwrap_or("the node gave no reason").to_owned();
    Err(match head.status {
        StatusCode::BAD_REQUEST => Status::bad_request(message),
        StatusCode::NOT_FOUND => Status::service_unavailable(message),
        _ => Status::internal(message),
    })
}

/// Chooses what is spoken.
///
/// # Errors
/// 400 for a client that wants no other protocol than HTTP, or one that is not known here.
pub(crate) fn negotiate(headers: &HeaderMap, known: &Protocols) -> Result<(HeaderMap, Carrier), Status> {
    if websocket::is_wanted(headers) {
        let accepted = websocket::accept(headers, known.websocket, known.websocket_fallback);
        let (answer, spoken) = accepted.map_err(|error| Status::bad_request(error.to_string()))?;
        return Ok((answer, Carrier::WebSocket(spoken)));
    }
    if !headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"spdy/3.1")) {
        return Err(Status::bad_request("Upgrade request required: upgrade to websocket or SPDY/3.1"));
    }
    let offered: Vec<&str> = headers
        .get_all(&STREAM_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let spoken = known.spdy.iter().copied().find(|known| offered.contains(known));
    // A client that offers nothing is older than the choice.
    let spoken = spoken.or_else(|| known.spdy.last().copied().filter(|_| offered.is_empty()));
    let spoken = spoken.ok_or_else(|| {
        Status::bad_request(format!(
            "{STREAM_PROTOCOL}: none of {offered:?} is known here, but {}",
            known.spdy.join(", ")
        ))
    })?;
    let mut answer = HeaderMap::new();
    answer.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(STREAM_PROTOCOL, HeaderValue::from_static(spoken));
    Ok((answer, Carrier::Spdy(spoken)))
}

/// Answers 101 and serves the client with `session`, until it is over or this server stops.
///
/// # Errors
/// 400 over HTTP/2, 429 when too many are open.
pub(crate) fn switch(
    call: &mut Call,
    headers: HeaderMap,
    session: impl FnOnce(ClientIo) -> BoxFuture<'static, ()> + Send + 'static,
) -> Result<Response<Body>, Status> {
    let upgrade: OnUpgrade = call
        .upgrade
        .take()
        .ok_or_else(|| Status::bad_request("this connection cannot change its protocol: use HTTP/1.1"))?;
    let place = call.shared.long_running.clone().try_acquire_owned().map_err(|_| {
        Status::too_many_requests("too many streams are open, please try again later", limits::RETRY_AFTER_SECONDS)
    })?;
    let stop = call.shared.stop.clone();
    let work = async move {
        let _place = place;
        let served = async {
            match upgrade.await {
                Ok(io) => session(TokioIo::new(io)).await,
                Err(error) => tracing::debug!(%error, "a client went before its protocol was changed"),
            }
        };
        tokio::select! {
            () = served => {}
            () = stop.cancelled() => {}
        }
    };
    let subresource = call.target.subresource.clone().unwrap_or_default();
    call.shared.tasks.spawn(work.instrument(tracing::debug_span!("stream", subresource)));
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A GET that changes the protocol acts like a POST, and needs the right to it too.
///
/// # Errors
/// 403.
pub(crate) fn require_create(call: &Call, subresource: &str) -> Result<(), Status> {
    if call.target.verb == "create" {
        return Ok(());
    }
    call.require("create", "", "pods", subresource, call.target.name.as_deref().unwrap_or_default())
}
