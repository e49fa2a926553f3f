//! What comes in over the link: other servers' stores, workers, newcomers, and the requests of all of them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shoal_apiserver::Peer;
use shoal_link::tasks::spawn_connection;
use shoal_link::{Accepted, Connection, Endpoint, Stream, StreamKind};
use tokio::sync::Semaphore;

use crate::server::Core;
use crate::{admission, limits, peers, route};

/// Takes connections until the endpoint is closed.
pub(crate) async fn run(endpoint: Endpoint, core: Arc<Core>) {
    while let Some(accepted) = endpoint.accept().await {
        let core = core.clone();
        match accepted {
            Accepted::Peer(connection) => {
                spawn_connection("peer", serve(core, connection));
            }
            Accepted::Newcomer(newcomer) => {
                let remote = newcomer.remote_address();
                spawn_connection("newcomer", newcomer.answer(move |request| admission::answer(core, remote, request)));
            }
        }
    }
}

/// Serves what the other side asks on `connection` until it is gone or the other side's certificate expires.
pub(crate) async fn serve(core: Arc<Core>, connection: Connection) {
    let node = connection.peer().node_name().map(str::to_string);
    if let Some(node) = &node {
        core.nodes.workers.connected(node, &connection);
    }
    tokio::select! {
        () = take_streams(&core, &connection) => {}
        () = expiry(&connection) => {
            tracing::info!(peer = connection.peer().common_name, "closed a connection whose certificate has expired");
            connection.close();
        }
    }
    if let Some(node) = &node {
        core.nodes.workers.disconnected(node, &connection);
    }
}

async fn take_streams(core: &Arc<Core>, connection: &Connection) {
    let places = Arc::new(Semaphore::new(limits::PEER_STREAMS));
    while let Ok((kind, stream)) = connection.accept().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let work = serve_stream(core.clone(), connection.clone(), kind, stream);
        spawn_connection("stream", async move {
            work.await;
            drop(place);
        });
    }
}

async fn serve_stream(core: Arc<Core>, connection: Connection, kind: StreamKind, stream: Stream) {
    if kind == StreamKind::HTTP {
        let peer = connection.peer();
        let peer =
            Peer::Certificate { common_name: peer.common_name.clone(), organizations: peer.organizations.clone() };
        return shoal_link::http::serve(stream, |request| route::answer(core.clone(), request, peer.clone())).await;
    }
    match peers::peer_stream(kind) {
        Some(kind) if connection.peer().is_server() => core.store.serve_peer(kind, Box::new(stream)).await,
        Some(_) => {
            tracing::warn!(peer = connection.peer().common_name, "refused a stream that is for servers only");
            connection.close();
        }
        None => tracing::debug!(peer = connection.peer().common_name, kind = kind.0, "a stream of an unknown kind"),
    }
}

async fn expiry(connection: &Connection) {
    loop {
        let left = connection.expires().as_second().saturating_sub(Timestamp::now().as_second());
        let Ok(left @ 1..) = u64::try_from(left) else { return };
        // Clocks are set: look again now and then.
        tokio::time::sleep(Duration::from_secs(left.min(3600))).await;
    }
}
