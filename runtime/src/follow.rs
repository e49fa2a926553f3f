//! Following the API: the node's pods into workers, Services, EndpointSlices and Nodes into the network's table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};
use shoal_client::{Cache, Selection};
use shoal_network::{Door, Listeners};
use tokio::sync::watch;

use crate::addresses::Range;
use crate::cluster_table::cluster_table;
use crate::context::Context;
use crate::limits::NODE_PORT_RETRY;
use crate::pod::spec;
use crate::pod_feed::{PodChange, PodFeed};
use crate::pods::{Origin, Pods};
use crate::static_pods::mirror::is_mirror;

/// How long the first pods wait for the node's range of addresses before somebody is told.
const RANGE_PATIENCE: Duration = Duration::from_secs(5);
/// Where the cluster's table is kept: collection and name.
pub const KEPT_NETWORK: (&str, &str) = ("network", "table");
/// Where the node's range of addresses is kept: collection and name.
pub const KEPT_RANGE: (&str, &str) = ("network", "range");

/// The network's objects as they are kept on disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeptNetwork {
    /// All Services.
    pub services: Vec<Arc<Service>>,
    /// All EndpointSlices.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// All Nodes.
    pub nodes: Vec<Arc<Node>>,
}

/// Gives the pods of this node to their workers for ever.
pub async fn follow_pods(context: Arc<Context>, pods: Arc<Pods>, mut range_known: watch::Receiver<bool>) {
    let feed = PodFeed::start(context.client.clone(), &context.config.node_name, context.tasks.stop().clone());
    let mut mirrors = BTreeMap::new();
    let mut is_first = true;
    loop {
        let mut changed = feed.next(is_first).await;
        if !changed.is_empty() && !*range_known.borrow() {
            let known = |known: &bool| *known;
            if tokio::time::timeout(RANGE_PATIENCE, range_known.wait_for(known)).await.is_err() {
                tracing::warn!("the cluster has given this node no pod network (spec.podCIDR); its pods wait for one");
                // Its sender lives as long as the agent.
                let _ = range_known.wait_for(known).await;
            }
        }
        take_mirrors(&mut mirrors, &mut changed);
        note_mirrors(&context, mirrors.values().cloned().collect());
        if is_first {
            // Those that were kept on disk may be gone from the API.
            let wanted: Vec<Arc<Pod>> = changed.into_iter().filter_map(|change| change.current).collect();
            pods.synchronize(&wanted, Origin::Api).await;
        } else {
            pods.follow(&changed).await;
        }
        is_first = false;
    }
}

/// Takes the mirrors out of what changed; what is left are the pods that the API wants.
fn take_mirrors(mirrors: &mut BTreeMap<String, Arc<Pod>>, changed: &mut [PodChange]) {
    for change in changed {
        if change.gone.as_ref().is_some_and(|uid| mirrors.remove(uid).is_some()) {
            change.gone = None;
        }
        if let Some(mirror) = change.current.take_if(|pod| is_mirror(pod)) {
            mirrors.insert(spec::uid(&mirror).to_owned(), mirror);
        }
        change.current = change.current.take().map(of_the_api);
    }
}

/// A pod of the API, whatever it says of itself: only a manifest on the node makes a pod static.
fn of_the_api(pod: Arc<Pod>) -> Arc<Pod> {
    if !spec::is_static(&pod) {
        return pod;
    }
    let mut pod = Pod::clone(&pod);
    pod.metadata.annotations.get_or_insert_default().remove(spec::CONFIG_SOURCE);
    Arc::new(pod)
}

/// Says which mirrors there are, if they are others than before.
fn note_mirrors(context: &Context, mirrors: Vec<Arc<Pod>>) {
    let marks = |mirrors: &[Arc<Pod>]| -> Vec<(String, bool)> {
        mirrors.iter().map(|mirror| (spec::uid(mirror).to_owned(), spec::is_deleted(mirror))).collect()
    };
    context.mirrors.send_if_modified(|known| {
        let is_new = known.as_ref().is_none_or(|known| marks(known) != marks(&mirrors));
        if is_new {
            *known = Some(Arc::new(mirrors));
        }
        is_new
    });
}

/// Keeps the network's table and the node ports for ever. `kept` is what the last process knew.
pub async fn follow_network(context: Arc<Context>, kept: KeptNetwork, range_known: watch::Sender<bool>) {
    let start = || (context.client.clone(), Selection::default(), context.tasks.stop().clone());
    let (client, selection, stop) = start();
    let services = Cache::<Service>::start(client, selection, stop);
    let (client, selection, stop) = start();
    let slices = Cache::<EndpointSlice>::start(client, selection, stop);
    let (client, selection, stop) = start();
    let nodes = Cache::<Node>::start(client, selection, stop);
    let (mut services_signal, mut slices_signal, mut nodes_signal) =
        (services.changed(), slices.changed(), nodes.changed());
    let mut listeners = Listeners::new(Arc::clone(&context.network), context.guests.threads());
    let of_service =
        |(protocol, port)| ((protocol, SocketAddr::new(context.config.node_address, port)), Door::NodePort(port));
    let mut failed = BTreeSet::new();
    let mut known = kept;
    loop {
        services_signal.mark_unchanged();
        slices_signal.mark_unchanged();
        nodes_signal.mark_unchanged();
        let before = versions(&known);
        if services.is_synced() {
            known.services = services.snapshot().values().cloned().collect();
        }
        if slices.is_synced() {
            known.slices = slices.snapshot().values().cloned().collect();
        }
        if nodes.is_synced() {
            known.nodes = nodes.snapshot().values().cloned().collect();
            note_range(&context, &known.nodes, &range_known);
        }
        if before != versions(&known) {
            context.keeper.keep(KEPT_NETWORK.0, KEPT_NETWORK.1, &known);
        }
        apply(&context, &known);
        let wanted = context.network.table().node_ports().into_iter().map(of_service).collect();
        let failures = listeners.keep(&wanted).await;
        for failure in &failures {
            if failed.insert(failure.port) {
                tracing::warn!(address = %failure.port.1, error = %failure.source, "a node port cannot be opened");
            }
        }
        failed.retain(|port| failures.iter().any(|f| f.port == *port));
        let retry = if failures.is_empty() { Duration::from_secs(3_600) } else { NODE_PORT_RETRY };
        tokio::select! {
            _ = services_signal.changed() => {}
            _ = slices_signal.changed() => {}
            _ = nodes_signal.changed() => {}
            () = tokio::time::sleep(retry) => {}
        }
    }
}

/// Makes the objects the network's table.
pub fn apply(context: &Context, known: &KeptNetwork) {
    let table = cluster_table(
        known.services.iter().map(Arc::as_ref),
        known.slices.iter().map(Arc::as_ref),
        known.nodes.iter().map(Arc::as_ref),
    );
    context.network.set_table(table);
    context.services.send_replace(Arc::new(known.services.clone()));
}

/// What tells two states apart.
fn versions(known: &KeptNetwork) -> Vec<Option<String>> {
    let services = known.services.iter().map(|o| o.metadata.resource_version.clone());
    let slices = known.slices.iter().map(|o| o.metadata.resource_version.clone());
    services.chain(slices).chain(known.nodes.iter().map(|o| o.metadata.resource_version.clone())).collect()
}

/// Takes the node's range of addresses once it has one.
fn note_range(context: &Context, nodes: &[Arc<Node>], range_known: &watch::Sender<bool>) {
    let own = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(&context.config.node_name));
    let Some(range) = own.and_then(|node| Range::of(node)) else { return };
    context.network.set_gateway(range.gateway());
    // Another one, if the node was deleted and has registered again.
    if context.addresses.lock().unwrap_or_else(PoisonError::into_inner).set_range(range) {
        range_known.send_replace(true);
        let text = own.and_then(|node| node.spec.as_ref()?.pod_cidr.clone()).unwrap_or_default();
        context.keeper.keep(KEPT_RANGE.0, KEPT_RANGE.1, &text);
    }
}
