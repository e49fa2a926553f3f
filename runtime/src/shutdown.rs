//! The node's graceful end: its pods are ended in the order of their importance before the agent goes, as the kubelet does it
//! ("Graceful node shutdown").
//!
//! Only an agent with a `shutdown_grace_s` does so. Without, an end of the process is a restart: the pods stay the node's and
//! start again with the next agent. Whoever stops the machine for good sets the period, and sends SIGTERM, as systemd does.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::pod::observed::{Doom, Refusal};
use crate::pod::spec;
use crate::pod_view::PodView;
use crate::pods::Pods;

/// Why a node that goes down takes no pod.
pub fn refusal() -> Refusal {
    let message = "Pod was rejected as the node is shutting down.".to_owned();
    Refusal { reason: "NodeShutdown".to_owned(), message }
}

/// Pods that end together, and how long they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Their uids.
    pub uids: Vec<String>,
    /// At most.
    pub period: Duration,
}

/// Who ends when: first the ordinary pods, then, in the time kept for them, the critical ones. Pure.
pub fn groups(pods: &[PodView], total: Duration, critical: Duration) -> Vec<Group> {
    let alive = || pods.iter().filter(|view| !view.is_over());
    let uids = |is_critical: bool| -> Vec<String> {
        let of_group = alive().filter(|view| spec::is_critical(&view.pod) == is_critical);
        of_group.map(|view| spec::uid(&view.pod).to_owned()).collect()
    };
    [(false, total.saturating_sub(critical)), (true, critical)]
        .into_iter()
        .map(|(is_critical, period)| Group { uids: uids(is_critical), period })
        .filter(|group| !group.uids.is_empty())
        .collect()
}

/// Ends all pods within the periods of the configuration; returns when the last has ended or its time is over.
pub async fn end_pods(context: &Arc<Context>, pods: &Pods) {
    let seconds = Duration::from_secs;
    let (total, critical) =
        (seconds(context.config.shutdown_grace_s), seconds(context.config.shutdown_grace_critical_s));
    context.node_state.send_modify(|state| state.is_shutting_down = true);
    for group in groups(&pods.views(), total, critical) {
        tracing::info!(pods = group.uids.len(), period = ?group.period, "the node goes down and ends its pods");
        for uid in &group.uids {
            pods.doom(uid, doom(group.period)).await;
        }
        if tokio::time::timeout(group.period, pods.ended(&group.uids)).await.is_err() {
            tracing::warn!("some pods did not end, or could not be reported, in their time");
        }
    }
}

fn doom(period: Duration) -> Doom {
    let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
    let refusal = Refusal { reason: "Terminated".to_owned(), message };
    Doom { refusal, grace: Some(period), is_disruption: true }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(uid: &str, priority: i32, phase: &str) -> PodView {
        let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [], "priority": priority}, "status": {"phase": phase}});
        PodView::new(&Arc::new(serde_json::from_value(pod).expect("a pod")))
    }

    #[test]
    fn critical_pods_end_last_and_in_the_time_kept_for_them() {
        let pods = [
            view("a", 0, "Running"),
            view("b", 2_000_001_000, "Running"),
            view("c", 9, "Pending"),
            view("d", 0, "Succeeded"),
        ];
        let seconds = Duration::from_secs;
        let group = |uids: &[&str], period| Group {
            uids: uids.iter().map(|uid| (*uid).to_owned()).collect(),
            period: seconds(period),
        };
        assert_eq!(groups(&pods, seconds(30), seconds(10)), [group(&["a", "c"], 20), group(&["b"], 10)]);
        assert_eq!(groups(&pods[1..2], seconds(30), seconds(10)), [group(&["b"], 10)]);
        assert_eq!(groups(&pods[3..], seconds(30), seconds(10)), []);
    }
}
