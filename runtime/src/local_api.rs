//! The node's own read-only API on this machine, which answers also when no server does: `/healthz`, `/pods`, `/metrics`,
//! `/stats/summary` and `/containerLogs/NAMESPACE/POD/CONTAINER`, as the servers get them.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http::uri::Authority;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shoal_link::http::Body;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::context::Context;
use crate::kubelet_api;
use crate::limits::LOCAL_CONNECTIONS;
use crate::pods::Pods;

/// The file below the data directory that says where it listens: for port 0, and for programs that look for it.
const ADDRESS_FILE: &str = "local-api";

/// Listens at `address`.
///
/// # Errors
/// With its context: the address is taken, or its file cannot be written.
pub async fn bind(address: SocketAddr, data_dir: &Path) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listening on {address} for --local-api"))?;
    let address = listener.local_addr().context("the local API's address")?;
    let file = data_dir.join(ADDRESS_FILE);
    std::fs::write(&file, address.to_string()).with_context(|| format!("writing {}", file.display()))?;
    tracing::info!(%address, "the node's own API answers");
    Ok(listener)
}

/// Answers for ever.
pub async fn serve(context: Arc<Context>, pods: Arc<Pods>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(LOCAL_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        // One that was lost before it was taken is nobody's loss.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (context, pods) = (Arc::clone(&context), Arc::clone(&pods));
        shoal_link::tasks::spawn_connection("local api", async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (context, pods) = (Arc::clone(&context), Arc::clone(&pods));
                async move {
                    let request: Request<Body> = request.map(|body| body.map_err(Into::into).boxed());
                    if !is_local(&request) {
                        let text = "only requests to localhost or an address are answered";
                        return Ok::<_, Infallible>(shoal_network::text_response(StatusCode::FORBIDDEN, text));
                    }
                    Ok(kubelet_api::answer(context, pods, request).await)
                }
            });
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a request to the local API broke off");
            }
        });
    }
}

/// Whether the request names this machine as one does who knows it: a web page in a browser here, whose name was made to lead to
/// this address, does not.
fn is_local(request: &Request<Body>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_here_by_chance_are_not_answered() {
        let named = |host: &str| {
            is_local(&Request::get("/").header("host", host).body(shoal_client::empty_body()).expect("a request"))
        };
        assert!(named("localhost:10255") && named("127.0.0.1:1") && named("[::1]:2"));
        assert!(!named("pages.example:10255"));
    }
}
