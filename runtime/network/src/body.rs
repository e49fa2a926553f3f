//! Small answers of the network itself, and what a proxy must take off a message.

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};

use crate::Body;

/// The pod address that a request between nodes is for.
pub(crate) const POD_ADDRESS: HeaderName = HeaderName::from_static("shoal-pod-address");

/// On an answer: the request was not looked at, and why. It may be sent to another endpoint.
pub(crate) const REFUSED: HeaderName = HeaderName::from_static("shoal-refused");

/// What holds for one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// An answer in plain text.
pub fn text_response(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut text = text.into();
    text.push('\n');
    let mut response = Response::new(full(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The answer to another node for a request that was not looked at.
pub fn refusal(reason: &str) -> Response<Body> {
    let mut response = text_response(StatusCode::SERVICE_UNAVAILABLE, reason);
    let value = HeaderValue::from_str(reason).unwrap_or_else(|_| HeaderValue::from_static("refused"));
    response.headers_mut().insert(REFUSED, value);
    response
}

/// A body of bytes that are at hand.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// Takes off what holds for one connection only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Brings a request into the form that goes over a connection: a path as its target, the authority in `Host`.
pub(crate) fn to_origin_form(request: &mut Request<Body>) {
    if let Some(authority) = request.uri().authority()
        && !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
        *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_a_connection_names_go_with_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("close, x-private"));
        headers.insert("x-private", HeaderValue::from_static("1"));
        headers.insert("x-kept", HeaderValue::from_static("1"));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn the_authority_moves_into_the_host_header() {
        let mut request =
            Request::builder().uri("http://back.shop:8080/a?b=c").body(full(Bytes::new())).expect("request");
        to_origin_form(&mut request);
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()[HOST], "back.shop:8080");
    }
}
