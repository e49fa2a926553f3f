//! The loops of the cluster: what controllers and the scheduler decide, done. They run on the leader and stop with it.
//!
//! One shape for all: observe (caches), decide (a pure function of another crate), act (the client; every write conditional on
//! what was seen). A signal only says "look again". Read `controllers` for who looks when, then `act`.

mod act;
mod controllers;
mod leases;
mod observed;
mod queue;
mod scheduling;
mod storage;

use shoal_client::{Client, Recorder};
use shoal_controllers::node::Patience;
use tokio_util::sync::CancellationToken;

use observed::Observed;

/// What the loops must be told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The name of this server, for the Leases that say who leads.
    pub holder: String,
    /// The cluster's CA, which every namespace publishes.
    pub ca_pem: String,
    /// How patient the cluster is with silent nodes.
    pub patience: Patience,
}

/// Runs all loops until `stop`.
pub(crate) async fn run(client: Client, settings: Settings, stop: CancellationToken) {
    // Whatever way this ends, what it started ends too.
    let over = stop.child_token();
    let _guard = over.clone().drop_guard();
    let observed = Observed::start(&client, &over);
    let synced = observed.synced();
    if stop.run_until_cancelled(synced).await.is_none() {
        return;
    }
    let recorder = |component: &str| Recorder::start(client.clone(), component, None, over.clone());
    let tasks = shoal_link::tasks::Tasks::new();
    tasks.spawn("leases", leases::renew(client.clone(), settings.holder.clone()));
    tasks.spawn("scheduler", scheduling::run(client.clone(), observed.clone(), recorder("default-scheduler")));
    controllers::start(&tasks, &client, &observed, &settings, &recorder("shoal-controllers"));
    stop.cancelled().await;
    tasks.end(crate::limits::STOP_LOOPS).await;
}
