//! `pods/log`: what a container has printed, fetched from its node and passed on as it comes.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use shoal_api::Status;

use crate::handler::Call;
use crate::verbs::get;
use crate::{Body, body, errors};

/// What is passed on to the node.
const PARAMETERS: [&str; 8] = [
    "follow",
    "previous",
    "timestamps",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "limitBytes",
    "insecureSkipTLSVerifyBackend",
];

/// Streams the log.
pub(crate) async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    call.barrier().await?;
    let name = call.name()?;
    let namespace = call.namespace().unwrap_or_default();
    let (pod, _) = get::current(call, name)?;
    let container = container(call, &pod, name)?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let parameters: Vec<String> = PARAMETERS
        .iter()
        .filter_map(|name| call.query.get(name).map(|value| format!("{name}={}", encode(value))))
        .collect();
    let path = format!("/containerLogs/{namespace}/{name}/{container}?{}", parameters.join("&"));
    let request = Request::get(path).body(body::empty()).map_err(|error| Status::bad_request(error.to_string()))?;
    let response = call.shared.config.node_requests.send(node, request).await.map_err(|error| errors::node(&error))?;
    let (mut parts, body) = response.into_parts();
    if !parts.status.is_success() {
        let text = body
            .collect()
            .await
            .map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned())
            .unwrap_or_default();
        return Err(match parts.status.as_u16() {
            404 => Status::bad_request(format!("container {container:?} in pod {name:?} has no log: {text}")),
            400 => Status::bad_request(text),
            _ => Status::internal(format!("node {node:?} answered {}: {text}", parts.status.as_u16())),
        });
    }
    parts.headers.clear();
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(Response::from_parts(parts, body))
}

/// The container that is meant: the one that is named, or the only one.
fn container(call: &Call, pod: &Value, name: &str) -> Result<String, Status> {
    let list = |field: &str| -> Vec<&str> {
        let containers = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array).into_iter().flatten();
        containers.filter_map(|container| container.get("name").and_then(Value::as_str)).collect()
    };
    let (main, init) = (list("containers"), list("initContainers"));
    match call.query.get("container") {
        Some(wanted) if main.contains(&wanted) || init.contains(&wanted) => Ok(wanted.to_owned()),
        Some(wanted) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        None => match main.as_slice() {
            [only] if init.is_empty() => Ok((*only).to_owned()),
            _ if init.is_empty() => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                main.join(" ")
            ))),
            _ => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}] or one of the init containers: [{}]",
                main.join(" "),
                init.join(" ")
            ))),
        },
    }
}

/// Percent-encodes a query value.
fn encode(value: &str) -> String {
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
