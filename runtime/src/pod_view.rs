//! What a pod's worker shows of its pod to the rest of the agent.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// A pod as its worker sees it.
#[derive(Debug, Clone)]
pub struct PodView {
    /// The object, with the status that the worker has decided, written or not.
    pub pod: Arc<Pod>,
    /// Nothing of it runs or is being started.
    pub is_quiet: bool,
    /// The API has this status, or there is nobody to tell.
    pub is_reported: bool,
}

impl PodView {
    /// Of a pod of which the worker has not decided anything yet.
    pub fn new(pod: &Arc<Pod>) -> PodView {
        PodView { pod: Arc::clone(pod), is_quiet: false, is_reported: false }
    }

    /// The phase.
    pub fn phase(&self) -> &str {
        self.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
    }

    /// Whether it came to its end.
    pub fn is_over(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }
}
