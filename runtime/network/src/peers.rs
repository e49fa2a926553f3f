//! Requests, connections and datagrams of other nodes for the pods of this one.
//!
//! The caller is who its certificate says: only nodes and servers of the cluster are served. A request names the pod
//! address that it is for; what cannot be taken is refused with a mark, so that the caller may try another endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use shoal_link::{Connection, StreamKind};
use tokio::sync::Semaphore;

use crate::body::{POD_ADDRESS, REFUSED, refusal};
use crate::forward::Network;
use crate::limits::PEER_STREAMS;
use crate::{Body, text_response};

/// The organizations whose members may call pods.
const MAY_CALL: [&str; 2] = ["system:nodes", "shoal:servers"];

/// Serves one connection of a peer until it ends. Dropping the future closes it.
pub async fn serve_peer(network: Arc<Network>, connection: Connection) {
    let peer = connection.peer();
    if !peer.organizations.iter().any(|o| MAY_CALL.contains(&o.as_str())) {
        tracing::warn!(peer = %peer.common_name, "refused a peer that is neither a node nor a server");
        connection.close();
        return;
    }
    let permits = Arc::new(Semaphore::new(PEER_STREAMS));
    while let Ok((kind, stream)) = connection.accept().await {
        if ![StreamKind::HTTP, StreamKind::TCP, StreamKind::DATAGRAMS].contains(&kind) {
            continue;
        }
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
        let network = Arc::clone(&network);
        shoal_link::tasks::spawn_connection("peer request", async move {
            let _permit = permit;
            match kind {
                StreamKind::TCP => network.take_stream(stream).await,
                StreamKind::DATAGRAMS => network.take_datagrams(stream).await,
                _ => shoal_link::http::serve(stream, move |request| answer(Arc::clone(&network), request)).await,
            }
        });
    }
}

async fn answer(network: Arc<Network>, mut request: Request<Body>) -> Response<Body> {
    let target =
        request.headers_mut().remove(POD_ADDRESS).and_then(|value| value.to_str().ok()?.parse::<SocketAddr>().ok());
    let Some(address) = target else {
        return text_response(http::StatusCode::BAD_REQUEST, "the request names no pod address");
    };
    match network.call_local(address, request).await {
        Ok(mut response) => {
            // Only this node may say that a request was not looked at, never a guest.
            response.headers_mut().remove(REFUSED);
            response
        }
        Err(refused) => refusal(&refused.reason),
    }
}
