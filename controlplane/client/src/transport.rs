//! How a request reaches the API.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
pub use shoal_link::http::{Body, BoxError};

/// A way to the API. Its own affair: which server, which connection, dialling again.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request`, whose URI is a path and a query; answers when the response's head is here. Dropping the future or the
    /// response gives the request up.
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>>;
}

/// A request got no response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// No server has seen it: sending it again is safe.
    #[error("no server was reached: {0}")]
    Unreachable(String),
    /// It was sent and nothing came back: a write may have happened, now or later.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// A body of these bytes.
pub fn bytes_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body of no bytes.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}
