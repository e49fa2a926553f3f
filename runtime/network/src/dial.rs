//! One HTTP/1.1 request over a TCP connection of its own: to a process of this node, or to the outside.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::body::{strip_hop_by_hop, to_origin_form};
use crate::{Body, BoxError, Refused};

/// Opens a TCP connection, or gives the request back untouched.
pub(crate) async fn call_port(
    address: SocketAddr,
    request: Request<Body>,
    patience: Duration,
) -> Result<Result<Response<Body>, BoxError>, Refused> {
    match tokio::time::timeout(patience, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Answers are small and waited for: do not hold the last segment back.
            let _ = stream.set_nodelay(true);
            Ok(send_http(stream, request).await)
        }
        Ok(Err(error)) => Err(Refused::new(request, format!("connecting to {address}: {error}"))),
        Err(_) => Err(Refused::new(request, format!("connecting to {address}: no answer within {patience:?}"))),
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
