//! Keeping a mirror in the API for each static pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use shoal_client::{ClientError, DeleteOptions};
use tokio::sync::watch;

use super::mirror::{MirrorAction, mirror_actions};
use crate::context::Context;
use crate::limits::MANIFEST_PERIOD;
use crate::pods::Pods;

/// Keeps them for ever, from the moment when the node is registered and its pods in the API are known.
pub async fn keep(context: Arc<Context>, pods: Arc<Pods>, mut registered: watch::Receiver<Option<Arc<Node>>>) {
    let mut mirrors = context.mirrors.subscribe();
    // The senders live as long as the agent.
    let _ = registered.wait_for(Option::is_some).await;
    loop {
        let known = mirrors.borrow_and_update().clone();
        let node = registered.borrow_and_update().clone();
        if let (Some(known), Some(node), Some(static_pods)) = (known, node, pods.static_pods()) {
            pods.mirrors_changed(&known).await;
            for action in mirror_actions(&static_pods, &known, &node) {
                if let Err(error) = act(&context, action).await {
                    tracing::debug!(%error, "a mirror pod was not written; it is tried again");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(MANIFEST_PERIOD) => {}
            _ = mirrors.changed() => {}
        }
    }
}

async fn act(context: &Context, action: MirrorAction) -> Result<(), ClientError> {
    let written = match action {
        MirrorAction::Create(mirror) => context.client.create::<Pod>(&mirror).await.map(drop),
        MirrorAction::Delete { namespace, name, uid } => {
            let options = DeleteOptions { grace_seconds: Some(0), uid: Some(uid), ..DeleteOptions::default() };
            context.client.delete::<Pod>(&namespace, &name, &options).await
        }
    };
    match written {
        // Gone, or there already: the watch will say so.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        written => written,
    }
}
