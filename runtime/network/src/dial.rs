//! One HTTP/1.1 request over a connection of its own: to a process of this node, or to the outside.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{strip_hop_by_hop, to_origin_form};
use crate::limits::LOCAL_CONNECT;
use crate::ports::ProcessPort;
use crate::{Body, BoxError, Refused};

/// Opens a connection to a process of this node, or gives the request back untouched.
pub(crate) async fn call_process(
    process: &ProcessPort,
    from: SocketAddr,
    to: SocketAddr,
    request: Request<Body>,
) -> Result<Result<Response<Body>, BoxError>, Refused> {
    match process.connect(from, to, LOCAL_CONNECT).await {
        Ok(stream) => Ok(send_http(stream, request).await),
        Err(reason) => Err(Refused::new(request, reason)),
    }
}

/// Sends one request over `stream` and returns the answer; its body keeps the connection until it is read or dropped.
///
/// # Errors
/// What hyper says of a connection that broke or a peer that speaks no HTTP.
pub async fn send_http<S>(stream: S, mut request: Request<Body>) -> Result<Response<Body>, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    strip_hop_by_hop(request.headers_mut());
    to_origin_form(&mut request);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection's own task: it ends when the answer's body is read or dropped, or the peer goes.
    shoal_link::tasks::spawn_connection("outgoing http connection", async move {
        let _ = connection.await;
    });
    let mut response = sender.send_request(request).await?;
    strip_hop_by_hop(response.headers_mut());
    Ok(response.map(|body| body.map_err(Into::into).boxed()))
}
