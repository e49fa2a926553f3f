//! The TCP port: TLS, HTTP/1.1 and h2 by ALPN, client certificates, bounded connections, an orderly stop.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Body, BoxError, Peer, limits};

/// Serves HTTPS on `listener` until `stop` is cancelled, then lets open requests end, for a while.
///
/// A client certificate that `tls` has verified becomes [`Peer::Certificate`]; without one the peer is
/// [`Peer::Token`]. More connections than the limit wait in the listener's queue. Cancel safety: dropping the future
/// closes every connection at once.
pub async fn serve_tls<F, R>(listener: TcpListener, tls: Arc<ServerConfig>, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Body>, Peer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((socket, remote)) => {
                let connection = serve_connection(socket, acceptor.clone(), graceful.watcher(), answer.clone());
                let span = tracing::debug_span!("connection", %remote);
                connections.spawn(
                    async move {
                        connection.await;
                        drop(place);
                    }
                    .instrument(span),
                );
            }
            Err(error) => {
                // Out of file descriptors, most likely: ending the process would not give any back.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits::DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("connections still open after the drain are closed");
    }
    connections.shutdown().await;
}

async fn serve_connection<F, R>(socket: TcpStream, acceptor: TlsAcceptor, watcher: Watcher, answer: F)
where
    F: Fn(Request<Body>, Peer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let _ = socket.set_nodelay(true);
    let tls = match tokio::time::timeout(limits::TLS_HANDSHAKE, acceptor.accept(socket)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let peer = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).map_or(Peer::Token, peer);
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.map(|body| BodyExt::boxed(body.map_err(BoxError::from))), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::BODY_READ);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1_000)
        .keep_alive_interval(std::time::Duration::from_secs(30));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// Reads the user out of a certificate that has been verified.
fn peer(certificate: &CertificateDer<'_>) -> Peer {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Peer::Token };
    let subject = parsed.subject();
    let Some(common_name) = subject.iter_common_name().find_map(|name| name.as_str().ok()) else { return Peer::Token };
    let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    Peer::Certificate { common_name: common_name.to_owned(), organizations }
}

impl crate::ApiServer {
    /// Serves the API alone on `listener`; see [`serve_tls`].
    pub async fn serve_tls(&self, listener: TcpListener, tls: Arc<ServerConfig>, stop: CancellationToken) {
        let server = self.clone();
        serve_tls(listener, tls, stop, move |request, peer| {
            let server = server.clone();
            async move { server.handle(request, peer).await }
        })
        .await;
    }
}
