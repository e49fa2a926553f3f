//! A connection of plain bytes to a port of a pod of this node.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

use crate::body::text_response;
use crate::limits::LOCAL_CONNECT;
use crate::local::{HttpTarget, LocalPods, LocalTarget};

/// Bytes that wait in a connection to a function, each way.
const BUFFER: usize = 64 << 10;

/// Both directions of a connection.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

impl LocalPods {
    /// Connects to what answers at this address; a function gets its requests by HTTP/1.1, or by HTTP/2 without
    /// an upgrade.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] when nothing answers there.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn ByteStream>> {
        match self.target(address) {
            Some(LocalTarget::Function(function)) => Ok(Box::new(connect_function(function))),
            Some(LocalTarget::Port(port)) => {
                let stream = tokio::time::timeout(LOCAL_CONNECT, TcpStream::connect(port)).await??;
                // What is forwarded is mostly waited for.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            None => Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("nothing listens at {address}"))),
        }
    }
}

fn connect_function(function: Arc<dyn HttpTarget>) -> DuplexStream {
    let (client, server) = tokio::io::duplex(BUFFER);
    let service = service_fn(move |request: Request<Incoming>| {
        let function = Arc::clone(&function);
        async move {
            let answered = function.call(request.map(|body| body.map_err(Into::into).boxed())).await;
            let refused = |reason| text_response(StatusCode::SERVICE_UNAVAILABLE, reason);
            Ok::<_, Infallible>(answered.unwrap_or_else(|untouched| refused(untouched.reason)))
        }
    });
    shoal_link::tasks::spawn_connection("connection to a function", async move {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().half_close(true);
        if let Err(error) = builder.serve_connection(TokioIo::new(server), service).await {
            tracing::debug!(%error, "a connection to a function broke");
        }
    });
    client
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use http::Response;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Body;
    use crate::body::full;
    use crate::local::Refused;

    struct Path;

    impl HttpTarget for Path {
        fn call(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, Refused>> {
            let path = request.uri().path().to_owned();
            Box::pin(async move { Ok(Response::new(full(path.into()))) })
        }
    }

    #[tokio::test]
    async fn a_function_is_reached_by_bytes_and_its_connection_serves_more_than_one_request() {
        let (pods, address) = (LocalPods::default(), SocketAddr::from(([10, 64, 0, 2], 80)));
        pods.listen(address, &LocalTarget::Function(Arc::new(Path)));
        let mut stream = pods.connect(address).await.unwrap();
        stream.write_all(b"GET /one HTTP/1.1\r\nhost: x\r\n\r\nGET /two HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("/one") && answer.contains("/two"), "{answer}");
    }

    #[tokio::test]
    async fn nothing_at_a_port_refuses() {
        let refused = LocalPods::default().connect(SocketAddr::from(([10, 64, 0, 2], 80))).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
    }
}
