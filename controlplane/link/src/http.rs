//! HTTP/1.1 on a stream: one request a stream, bodies flowing both ways as long as they like.
//!
//! A stream costs a few bytes, so nothing is kept alive and nothing queues behind anything: a watch, a log that is followed
//! and a short GET do not know of one another.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::connection::{Connection, ConnectionLost, Stream, StreamKind};
use crate::{limits, tasks};

/// What can go wrong in a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every request and response between our own parts.
pub type Body = BoxBody<Bytes, BoxError>;

/// A request got no response.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The peer has not seen it.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// It broke off on the way: the peer may have seen it, and done what it asks.
    #[error("{peer} gave no answer: {reason}")]
    Broken {
        /// The peer's common name.
        peer: String,
        /// Why.
        reason: String,
    },
}

/// Sends `request` on a stream of its own; answers as soon as the response's head is here.
///
/// Dropping the response, or this future, ends the stream, and with it the work of the other side. There is no deadline here:
/// the caller knows how long the answer may take.
///
/// # Errors
/// [`RequestError`].
pub async fn request(connection: &Connection, mut request: Request<Body>) -> Result<Response<Body>, RequestError> {
    let stream = connection.open(StreamKind::HTTP).await?;
    let broken = |error: hyper::Error| RequestError::Broken {
        peer: connection.peer().common_name.clone(),
        reason: error.to_string(),
    };
    if !request.headers().contains_key(http::header::HOST) {
        let host = request.uri().authority().map_or("link.shoal", http::uri::Authority::as_str);
        let host = http::HeaderValue::from_str(host).unwrap_or(http::HeaderValue::from_static("link.shoal"));
        request.headers_mut().insert(http::header::HOST, host);
    }
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tasks::spawn_connection("http request on a stream", async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a request on a stream broke off");
        }
    });
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok(response.map(|body| body.map_err(Into::into).boxed()))
}

/// Answers the one request on `stream` with `handler`. Cancel safe: dropping the future ends the stream.
pub async fn serve<F, R>(stream: Stream, handler: F)
where
    F: Fn(Request<Body>) -> R + Send,
    R: Future<Output = Response<Body>> + Send,
{
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let answer = handler(request.map(|body| body.map_err(Into::into).boxed()));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let unwanted = stream.unwanted();
    let mut connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    // A watch that has nothing to say writes nothing, and would not notice that nobody listens any more.
    let served = tokio::select! {
        biased;
        served = &mut connection => served,
        () = unwanted => return,
    };
    match served {
        Ok(()) => linger(connection.into_parts().io.into_inner()).await,
        Err(error) => tracing::debug!(%error, "a request on a stream broke off"),
    }
}

/// Reads what the other side still sends of its request: to refuse it would break the answer on its way. Our direction has ended:
/// that is left to hyper, which without it takes an answer for sent that it still holds.
async fn linger(mut stream: Stream) {
    // It fails only when the other side has gone.
    let _ = tokio::time::timeout(limits::LINGER, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
}
