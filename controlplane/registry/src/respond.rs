//! The forms that answers share.

use bytes::Bytes;
use http::{Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use shoal_link::http::Body;

/// A whole body of `content_type`.
pub(crate) fn bytes(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, body.len())
        .header("docker-distribution-api-version", "registry/2.0")
        .body(Full::new(body).map_err(|never| match never {}).boxed())
        .expect("the parts are valid")
}

/// No body, for 201, 202 and 204, to which callers add headers.
pub(crate) fn empty(status: StatusCode) -> http::response::Builder {
    Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, 0)
        .header("docker-distribution-api-version", "registry/2.0")
}

/// The empty body itself.
pub(crate) fn no_body() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

/// The answer to `GET /v2/`: yes, this is a registry.
pub(crate) fn base() -> Response<Body> {
    bytes(StatusCode::OK, "application/json", "{}")
}

/// The value of `key` in the query of `uri`, percent-decoded as far as digests and names need it.
pub(crate) fn query(uri: &Uri, key: &str) -> Option<String> {
    let pairs = uri.query()?.split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key)?.1;
    Some(value.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/"))
}
