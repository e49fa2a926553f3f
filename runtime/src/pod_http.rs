//! The agent's own requests to a container, for probes and hooks.

use std::net::{IpAddr, SocketAddr};

use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use shoal_network::{Body, Network};

use crate::pod::spec;

/// Where a port of a container is, by number or name.
///
/// # Errors
/// A sentence, if the container has no port of that name.
pub fn address(container: &Container, pod: IpAddr, port: &IntOrString) -> Result<SocketAddr, String> {
    let number = spec::port_number(container, port);
    let number = number.ok_or_else(|| match port {
        IntOrString::String(name) => format!("the port {name:?} is not among the container's"),
        IntOrString::Int(number) => format!("{number} is no port"),
    })?;
    Ok(SocketAddr::new(pod, number))
}

/// Sends what `get` says to the pod; answers its response.
///
/// # Errors
/// A sentence, if there is none.
pub async fn get(
    network: &Network,
    container: &Container,
    pod: IpAddr,
    get: &HTTPGetAction,
    agent: &str,
) -> Result<Response<Body>, String> {
    let address = address(container, pod, &get.port)?;
    let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let headers = get.http_headers.as_deref().unwrap_or_default();
    let named = |name: &str| headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value.clone());
    let mut request = Request::get(path)
        .header(header::USER_AGENT, named("user-agent").unwrap_or_else(|| agent.to_owned()))
        .header(header::HOST, named("host").unwrap_or_else(|| address.to_string()));
    let is_set = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case("user-agent");
    for header in headers.iter().filter(|h| !is_set(&h.name)) {
        request = request.header(&header.name, &header.value);
    }
    let body = Empty::new().map_err(|never| match never {}).boxed();
    let request = request.body(body).map_err(|error| error.to_string())?;
    network.call_pod(address, request).await.map_err(|error| error.to_string())
}
