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

/// The value of `key` in the query of `uri`, percent-decoded. A plus is a plus, since media types have some.
pub(crate) fn query(uri: &Uri, key: &str) -> Option<String> {
    let pairs = uri.query()?.split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key)?.1;
    Some(percent_decode(value))
}

/// What is no escape stays as it is.
fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(b'%'));
        bytes.extend_from_slice(&part.as_bytes()[if code.is_some() { 2 } else { 0 }..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_clients_escape_it() {
        let of = |text: &str| query(&text.parse().expect("a uri"), "artifactType");
        let bundle = Some("application/vnd.dev.sigstore.bundle.v0.3+json".to_string());
        assert_eq!(of("/v2/a/referrers/x?n=1&artifactType=application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson"), bundle);
        assert_eq!(of("/v2/a/referrers/x?artifactType=application/vnd.dev.sigstore.bundle.v0.3+json"), bundle);
        assert_eq!(of("/?artifactType=sha256%3a1%3A2"), Some("sha256:1:2".to_string()));
        assert_eq!(of("/?artifactType=1%&artifactType=2"), Some("1%".to_string()));
        assert_eq!(of("/?artifactType=%zz%4%%41%+1"), Some("%zz%4%A%+1".to_string()));
        assert_eq!(of("/?other=1"), None);
    }
}
