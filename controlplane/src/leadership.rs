//! What only the leader does: it makes what every cluster holds, and runs the loops, as long as it leads.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use shoal_client::Client;
use shoal_controllers::node::Patience;
use shoal_link::tasks::Tasks;
use shoal_store::Store;
use tokio_util::sync::CancellationToken;

use crate::local_transport::LocalTransport;
use crate::server::Core;
use crate::{limits, loops, members};

/// How often a leader looks whether the servers' addresses have changed.
const LOOK_AT_MEMBERS: Duration = Duration::from_secs(2);

/// Leads whenever this server is the leader, until `stop`.
pub(crate) async fn run(core: Arc<Core>, patience: Patience, stop: CancellationToken) {
    let mut leadership = core.store.leadership();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            elected = leadership.wait_for(|now| now.is_self) => if elected.is_err() {
                return;
            },
        }
        let term = leadership.borrow().term;
        tracing::info!(term, "this server leads the cluster");
        let leading = lead(&core, patience);
        tokio::select! {
            () = stop.cancelled() => {}
            // An error means that the store has stopped.
            _ = leadership.wait_for(|now| !now.is_self || now.term != term) => {}
        }
        if !leading.end(limits::STOP_LOOPS).await {
            // Whatever they still write is conditional on what they saw.
            tracing::warn!("the loops did not end in time");
        }
        tracing::info!(term, "this server no longer leads the cluster");
    }
}

/// Starts what a leader does.
fn lead(core: &Arc<Core>, patience: Patience) -> Tasks {
    let leading = Tasks::new();
    let transport = LocalTransport { api: core.api.clone(), user: "system:shoal:controllers".to_string() };
    let client = Client::new(Arc::new(transport));
    let settings = loops::Settings {
        holder: core.store.own().name.clone(),
        ca_pem: core.keys.authority.certificate_pem().to_string(),
        patience,
    };
    leading.spawn_draining("loops", move |stop| {
        again(stop, move |stop| loops::run(client.clone(), settings.clone(), stop))
    });
    leading.spawn("feature level", members::raise_feature_level(core.clone()));
    let core = core.clone();
    leading.spawn_draining("bootstrap", move |stop| again(stop, move |stop| provide(core.clone(), stop)));
    leading
}

/// Does `work` until `stop`, started again should it panic: a server that leads and does nothing would be the worst.
async fn again<R: Future<Output = ()>>(stop: CancellationToken, work: impl Fn(CancellationToken) -> R) {
    while !stop.is_cancelled() {
        if AssertUnwindSafe(work(stop.clone())).catch_unwind().await.is_err() {
            tracing::error!("what the leader does has panicked and is started again");
        }
        // It answers nothing when it is to stop.
        let _ = stop.run_until_cancelled(tokio::time::sleep(limits::RETRY)).await;
    }
}

/// Makes what every cluster holds, and keeps the API's own Service pointed at the servers.
async fn provide(core: Arc<Core>, over: CancellationToken) {
    let mut provided: Option<Vec<SocketAddr>> = None;
    while !over.is_cancelled() {
        let addresses = api_addresses(&core.store);
        if provided.as_ref() != Some(&addresses) {
            match core.api.bootstrap(&addresses).await {
                Ok(()) => provided = Some(addresses),
                Err(error) => tracing::warn!(%error, "what every cluster holds could not be made yet"),
            }
        }
        let pause = if provided.is_some() { LOOK_AT_MEMBERS } else { limits::RETRY };
        tokio::select! {
            () = over.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The addresses of all servers' APIs, as far as they are IP addresses, sorted.
fn api_addresses(store: &Store) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> =
        store.members().iter().filter_map(|member| member.api_address.parse().ok()).collect();
    addresses.sort();
    addresses
}
