//! What makes one node better than another that would do as well.

use k8s_openapi::api::core::v1::Pod;

use crate::filters::{fits, tolerates};
use crate::request::Request;
use crate::snapshot::{NodeState, group};

/// The score of a node: higher is better. What stands first counts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// The weight of what the pod prefers.
    preferred: i64,
    /// The fewer of the same group are here, the better.
    spread: i64,
    /// How much would be left of what is asked for, in thousandths.
    room: i64,
    /// The fewer pods in all, the better.
    quiet: i64,
}

pub(crate) fn score(pod: &Pod, request: &Request, state: &NodeState) -> Score {
    let siblings = state.groups.get(&group(pod)).copied().unwrap_or_default();
    Score {
        preferred: preferred(pod, state),
        spread: -i64::from(siblings),
        room: room(request, state),
        quiet: -i64::from(state.pods),
    }
}

/// The mean of what would be left of CPU and memory.
fn room(request: &Request, state: &NodeState) -> i64 {
    let left = |name: &str| {
        let allocatable = state.allocatable.get(name).copied().filter(|amount| *amount > 0)?;
        let taken =
            state.taken.get(name).copied().unwrap_or_default() + request.amounts.get(name).copied().unwrap_or_default();
        i64::try_from((allocatable - taken) * 1000 / allocatable).ok()
    };
    (left("cpu").unwrap_or_default() + left("memory").unwrap_or_default()) / 2
}

fn preferred(pod: &Pod, state: &NodeState) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref());
    let wishes = terms.unwrap_or_default().iter().filter(|term| fits(&term.preference, &state.node));
    let wished: i64 = wishes.map(|term| i64::from(term.weight)).sum();
    let taints = state.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let avoided = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let avoided = avoided.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint))).count();
    wished - i64::try_from(avoided).unwrap_or(i64::MAX).saturating_mul(100)
}
