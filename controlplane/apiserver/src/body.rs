//! The body type that requests and responses have between our crates, and the few ways to make one.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::mpsc;

/// A boxed error, as a body gives it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every request and response between our crates.
pub type Body = http_body_util::combinators::BoxBody<Bytes, BoxError>;

/// A body of bytes that are already here.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body without bytes.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body that ends when every sender is gone. The channel is bounded by `frames`.
pub(crate) fn channel(frames: usize) -> (mpsc::Sender<Bytes>, Body) {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(frames);
    let stream = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|frame| frame.map(|bytes| Ok(http_body::Frame::data(bytes))))
    });
    (sender, BodyExt::boxed(StreamBody::new(stream)))
}
