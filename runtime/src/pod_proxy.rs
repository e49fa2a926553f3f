//! A server's request for what answers at a port of a pod of this node: `/proxy/NAMESPACE/POD/PORT/PATH`.

use std::net::SocketAddr;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use shoal_link::http::Body;

use crate::context::Context;
use crate::kubelet_api::{failure, no_pod};
use crate::pod::spec;
use crate::pods::Pods;

/// Asks the pod, with the method, headers and body of the request.
pub async fn answer(context: &Context, pods: &Pods, mut request: Request<Body>) -> Response<Body> {
    let full = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    let Some(target) = Target::parse(full) else {
        return failure(StatusCode::NOT_FOUND, "NotFound", "no such path on a node");
    };
    let Some(pod) = pods.find(target.namespace, target.pod) else { return no_pod(target.pod) };
    let unreachable = |why: &str| {
        let message = format!("error trying to reach service: {why}");
        failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &message)
    };
    let Some(address) = context.address(spec::uid(&pod)) else { return unreachable("the pod is not running") };
    let address = SocketAddr::new(address, target.port);
    let Ok(uri) = target.path.parse::<Uri>() else { return unreachable("the path is none") };
    *request.uri_mut() = uri;
    // An address is always a header's value.
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        request.headers_mut().insert(HOST, host);
    }
    match context.network.call_pod(address, request).await {
        Ok(response) => response,
        Err(error) => unreachable(&error.to_string()),
    }
}

/// Who is asked, and for what.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    namespace: &'a str,
    pod: &'a str,
    port: u16,
    /// With the query.
    path: String,
}

impl<'a> Target<'a> {
    fn parse(full: &'a str) -> Option<Target<'a>> {
        let mut parts = full.strip_prefix("/proxy/")?.splitn(4, '/');
        let (namespace, pod, port) = (parts.next()?, parts.next()?, parts.next()?);
        let path = format!("/{}", parts.next()?);
        Some(Target { namespace, pod, port: port.parse().ok().filter(|port| *port > 0)?, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_behind_the_port_is_the_pod_s() {
        let parsed = Target::parse("/proxy/web/front-1/8080/a//b%2F/?x=/1");
        let path = "/a//b%2F/?x=/1".to_owned();
        assert_eq!(parsed, Some(Target { namespace: "web", pod: "front-1", port: 8080, path }));
        for bad in ["/proxy/web/front/80", "/proxy/web/front/0/", "/proxy/web/front/http/", "/pods"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
