//! `pods/log`: what a container has printed, fetched from its node and passed on as it comes.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::BodyExt;
use shoal_api::Status;

use super::streams::{self, Place};
use crate::handler::Call;
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
    let Place { pod, node } = streams::place(call).await?;
    let name = call.name()?;
    let namespace = call.namespace().unwrap_or_default();
    let container = streams::container(call, &pod, name)?;
    let parameters: Vec<String> = PARAMETERS
        .iter()
        .filter_map(|name| call.query.get(name).map(|value| format!("{name}={}", streams::encode(value))))
        .collect();
    let path = format!("/containerLogs/{namespace}/{name}/{container}?{}", parameters.join("&"));
    let request = Request::get(path).body(body::empty()).map_err(|error| Status::bad_request(error.to_string()))?;
    let response = call.shared.config.node_requests.send(&node, request).await.map_err(|error| errors::node(&error))?;
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
