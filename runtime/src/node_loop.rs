//! Registering the node, writing its status, renewing its Lease.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::json;
use shoal_client::{ClientError, Patch};
use shoal_link::Connection;
use tokio::sync::watch;

use crate::context::Context;
use crate::eviction::pressure::Pressure;
use crate::limits::{WRITE_RETRY_FIRST, WRITE_RETRY_LONGEST, WRITE_TIMEOUT};
use crate::node::{self, LEASE_NAMESPACE, Machine};
use crate::node_state::NodeState;

/// Registers the node and keeps its status; says what the API has of it.
pub async fn keep_node(
    context: Arc<Context>,
    machine: Machine,
    link_address: String,
    registered: watch::Sender<Option<Arc<Node>>>,
) {
    let mut status: Option<NodeStatus> = None;
    let mut connection = context.uplink.changes();
    let mut failures = 0u32;
    let mut written: Option<Instant> = None;
    let look = context.config.pace.lease() * 2;
    let mut states = context.node_state.subscribe();
    let mut told = NodeState::default();
    loop {
        connected(&mut connection).await;
        let state = states.borrow_and_update().clone();
        if state != told {
            written = None;
        }
        let is_fresh = written.is_some_and(|written| written.elapsed() < context.config.pace.node_status());
        if is_fresh && is_said(&context, !state.is_shutting_down).await {
            tokio::select! {
                () = tokio::time::sleep(look) => {}
                _ = connection.changed() => written = None,
                _ = states.changed() => {}
            }
            continue;
        }
        let now = node::status(&context.config, &machine, &state, status.as_ref(), Timestamp::now());
        let wait = match write_node(&context, &link_address, &now).await {
            Ok(node) => {
                if registered.borrow().is_none() {
                    tracing::info!(node = context.config.node_name, "the node is registered");
                    context.events.of_node(&node, "Starting", "Starting the Wasm node agent.");
                }
                tell_changes(&context, &node, &told, &state);
                told = state;
                registered.send_replace(Some(Arc::new(node)));
                status = Some(now);
                failures = 0;
                written = Some(Instant::now());
                look
            }
            Err(error) => {
                tracing::debug!(%error, "writing the node failed");
                failures = failures.saturating_add(1);
                WRITE_RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(WRITE_RETRY_LONGEST)
            }
        };
        // A new connection may lead to a cluster that has forgotten us.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = connection.changed() => written = None,
            _ = states.changed() => {}
        }
    }
}

/// The events of a node whose state changed.
fn tell_changes(context: &Context, node: &Node, before: &NodeState, now: &NodeState) {
    let name = &context.config.node_name;
    let tell = |event: &str| context.events.of_node(node, event, &format!("Node {name} status is now: {event}"));
    for pressure in Pressure::ALL {
        let (was, is) = (before.pressures.contains(&pressure), now.pressures.contains(&pressure));
        if was != is {
            tell(pressure.words().events[usize::from(!is)]);
        }
    }
    if now.is_shutting_down && !before.is_shutting_down {
        tell("NodeNotReady");
        context.events.of_node(node, "Shutdown", "Shutdown manager detected shutdown event");
    }
}

/// Whether the API still says of the node what it was told: the control plane takes the word of a node that was silent for
/// too long away, and only the node itself can give it again.
async fn is_said(context: &Context, is_ready: bool) -> bool {
    match context.client.get::<Node>("", &context.config.node_name).await {
        Ok(node) => {
            let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && (condition.status == "True") == is_ready)
        }
        Err(error) => !error.is_not_found(),
    }
}

async fn connected(connection: &mut watch::Receiver<Option<Connection>>) {
    // The uplink outlives this task.
    let _ = connection.wait_for(Option::is_some).await;
}

async fn write_node(context: &Context, link_address: &str, status: &NodeStatus) -> Result<Node, ClientError> {
    let name = context.config.node_name.as_str();
    let metadata = node::metadata(&context.config, link_address);
    // The Lease first: whoever reads the status must not find it older than the word that the node is ready.
    if let Ok(node) = context.client.get::<Node>("", name).await {
        renew(context, &node).await?;
    }
    let patch = Patch::Merge(json!({"metadata": {"labels": metadata.labels, "annotations": metadata.annotations}}));
    match context.client.patch::<Node>("", name, &patch).await {
        Err(error) if error.is_not_found() => {
            let node = Node { metadata, status: Some(status.clone()), ..Node::default() };
            context.client.create(&node).await?;
        }
        result => {
            result?;
        }
    }
    context.client.patch_status::<Node>("", name, &Patch::Strategic(json!({"status": status}))).await
}

/// Renews the Lease for ever, from the moment when the node is registered.
pub async fn keep_lease(context: Arc<Context>, mut registered: watch::Receiver<Option<Arc<Node>>>) {
    let Ok(Some(node)) = registered.wait_for(Option::is_some).await.map(|node| node.clone()) else { return };
    let period = context.config.pace.lease();
    let mut connection = context.uplink.changes();
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let renewed = tokio::select! {
            renewed = tokio::time::timeout(WRITE_TIMEOUT, renew(&context, &node)) => renewed,
            // What was asked of the server before may never be answered. A busy one is waited for: asking anew would begin at the
            // end of its queue, and a node that only ever does that is taken for dead.
            _ = connection.changed() => continue,
        };
        match renewed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "renewing the lease failed"),
            Err(_) => tracing::debug!("renewing the lease took too long"),
        }
        tokio::select! {
            _ = ticks.tick() => {}
            _ = connection.changed() => {}
        }
    }
}

async fn renew(context: &Context, node: &Node) -> Result<(), ClientError> {
    let lease = node::lease(&context.config, node, Timestamp::now());
    let patch = Patch::Merge(json!({"spec": lease.spec}));
    match context.client.patch::<Lease>(LEASE_NAMESPACE, &context.config.node_name, &patch).await {
        Err(error) if error.is_not_found() => context.client.create(&lease).await.map(|_| ()),
        result => result.map(|_| ()),
    }
}
