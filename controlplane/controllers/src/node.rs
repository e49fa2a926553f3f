//! A node that does not renew its Lease is unknown, then tainted, and its pods are moved.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::action::{Action, EventKind, Target};
use crate::pods::is_over;

/// How patient the cluster is with its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a node may be silent before it counts as unknown.
    pub grace: SignedDuration,
    /// How long pods stay on a node that is unknown or not ready if they say nothing about it themselves. The 300 s that the API
    /// gives every pod count as nothing said.
    pub toleration: SignedDuration,
}

impl Patience {
    /// For machines on one network.
    pub const LAN: Self = Self { grace: SignedDuration::from_secs(4), toleration: SignedDuration::ZERO };
    /// Kubernetes' own numbers.
    pub const KUBERNETES: Self =
        Self { grace: SignedDuration::from_secs(40), toleration: SignedDuration::from_secs(300) };
}

/// What the API gives every pod that does not say how long it stays (Kubernetes: `DefaultTolerationSeconds`).
const GIVEN_BY_API: i64 = 300;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The conditions whose truth keeps new pods away, and the taints that do it (Kubernetes: "Taint nodes by condition").
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// What was heard of the nodes, by the clock of whoever listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// When this node was last heard of.
    pub last: Timestamp,
    /// When no node at all was to be heard for the last time, if ever: see [`is_nobody_heard`].
    pub nobody_at: Option<Timestamp>,
}

/// Whether no node at all is to be heard: `nodes` are all of them, each with the time when it was last heard of.
///
/// Then it is rather the control plane that is cut off, and there is nowhere to go (Kubernetes: the full disruption of all zones). One
/// that was heard of in the last three quarters of a grace period counts as heard: nodes renew their Leases four times in one, so that
/// those which fall silent together do so here.
pub fn is_nobody_heard<'a>(
    nodes: impl IntoIterator<Item = (&'a Node, Timestamp)>,
    patience: Patience,
    now: Timestamp,
) -> bool {
    let is_heard = |node: &Node, last: Timestamp| is_ready(node) && now.duration_since(last) * 4 < patience.grace * 3;
    let mut nodes = nodes.into_iter().peekable();
    nodes.peek().is_some() && !nodes.any(|(node, last)| is_heard(node, last))
}

/// Whether the node's last word is that it is ready, and nobody has taken it away.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What `node` needs; `pods` are those on it.
///
/// As long as no node is to be heard, and for a grace period after that, in which they may all come back, no pod leaves a node that
/// is silent, or was and has not said since that it is ready.
pub fn reconcile(node: &Node, heard: Heard, pods: &[&Pod], patience: Patience, now: Timestamp) -> Vec<Action> {
    if node.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let expiry = heard.last.checked_add(patience.grace).unwrap_or(Timestamp::MAX);
    let is_silent = expiry <= now;
    let trusted_from = heard.nobody_at.and_then(|at| at.checked_add(patience.grace).ok());
    let is_deaf = trusted_from.is_some_and(|from| now < from);
    let mut actions = Vec::new();
    if is_silent && let Some(unknown) = unknown(node, now) {
        actions.push(Action::replace_status(&unknown));
        let message = format!("Node {} status is now: NodeNotReady", node.metadata.name.as_deref().unwrap_or_default());
        actions.push(Action::event(node, EventKind::Normal, "NodeNotReady", message));
        return actions;
    }
    if !is_silent {
        actions.push(Action::LookAgain { at: expiry });
    }
    if let Some(from) = trusted_from.filter(|_| is_deaf && !is_ready(node)) {
        // Often, so that it is known when the first was heard again.
        let soon = now.checked_add(patience.grace / 4).unwrap_or(Timestamp::MAX);
        actions.push(Action::LookAgain { at: from.min(soon) });
    }
    let mut wanted = node.clone();
    let spec = wanted.spec.get_or_insert_default();
    let taints = taints(node, is_deaf, now);
    if taints != spec.taints.clone().unwrap_or_default() {
        spec.taints = Some(taints.clone()).filter(|taints| !taints.is_empty());
    }
    if wanted.spec != node.spec {
        actions.push(Action::replace(&wanted));
    }
    let strict: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
    for pod in pods.iter().filter(|pod| !is_over(pod) && pod.metadata.deletion_timestamp.is_none()) {
        match leaves_at(pod, &strict, patience) {
            Some(at) if at <= now => {
                actions.push(Action::delete(*pod));
                let message = format!("Marking for deletion Pod {}", full_name(pod));
                actions.push(Action::event(*pod, EventKind::Normal, "TaintManagerEviction", message));
            }
            Some(at) => actions.push(Action::LookAgain { at }),
            None => {}
        }
    }
    // Nobody is there to say that they have stopped: what is being deleted on a node that has vanished is let go.
    if is_silent && !is_deaf {
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            actions.push(force(pod));
        }
    }
    actions
}

/// The pods of a node that does not exist (any more) go at once, if the API confirms that it does not.
pub fn pods_of_no_node(node: &str, pods: &[&Pod]) -> Vec<Action> {
    let owner = || vec![(Target::named::<Node>("", node), String::new())];
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    let gone = |pod: &&Pod| Action::DeleteOrphan {
        target: Target::of(*pod),
        uid: uid(pod),
        owners: owner(),
        grace_seconds: Some(0),
    };
    pods.iter().map(gone).collect()
}

fn force(pod: &Pod) -> Action {
    let Action::Delete { target, uid, .. } = Action::delete(pod) else { unreachable!("it makes nothing else") };
    Action::Delete { target, uid, grace_seconds: Some(0) }
}

fn full_name(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

/// The node with all that it no longer says itself unknown; `None` if it is so already.
fn unknown(node: &Node, now: Timestamp) -> Option<Node> {
    let mut unknown = node.clone();
    let conditions = unknown.status.get_or_insert_default().conditions.get_or_insert_default();
    if !conditions.iter().any(|condition| condition.type_ == "Ready") {
        conditions.push(NodeCondition { type_: "Ready".to_owned(), ..NodeCondition::default() });
    }
    let mut changed = false;
    for condition in conditions.iter_mut().filter(|condition| condition.status != "Unknown") {
        condition.status = "Unknown".to_owned();
        condition.reason = Some("NodeStatusUnknown".to_owned());
        condition.message = Some("Kubelet stopped posting node status.".to_owned());
        condition.last_transition_time = Some(Time(now));
        changed = true;
    }
    changed.then_some(unknown)
}

/// The taints that follow from the node's state, and those that others set. If nobody is to be heard, none that pods leave for.
fn taints(node: &Node, is_deaf: bool, now: Timestamp) -> Vec<Taint> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready =
        conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status.as_str());
    let mut wanted = Vec::new();
    match ready {
        Some("True") => {}
        Some("Unknown") if is_deaf => wanted.push((UNREACHABLE, "NoSchedule")),
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    let is_on = |name: &str| conditions.iter().any(|condition| condition.type_ == name && condition.status == "True");
    wanted.extend(PRESSURES.iter().filter(|(name, _)| is_on(name)).map(|(_, taint)| (*taint, "NoSchedule")));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let mut taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let is_ours = |taint: &Taint| {
        let key = taint.key.as_str();
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    taints.retain(|taint| !is_ours(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str())));
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let time_added = (effect == "NoExecute").then_some(Time(now));
            taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    }
    taints
}

/// When `pod` has to leave because of these taints; `None` for never.
fn leaves_at(pod: &Pod, taints: &[&Taint], patience: Patience) -> Option<Timestamp> {
    taints.iter().filter_map(|taint| leaves_for(pod, taint, patience)).min()
}

fn leaves_for(pod: &Pod, taint: &Taint, patience: Patience) -> Option<Timestamp> {
    let added = taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let is_health = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut tolerating = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
    let stays = if tolerating.peek().is_none() {
        if is_health { patience.toleration } else { SignedDuration::ZERO }
    } else {
        // The shortest that is given counts; one without a time means for ever.
        let seconds = tolerating.filter_map(|toleration| toleration.toleration_seconds).min()?;
        if is_health && seconds == GIVEN_BY_API {
            patience.toleration
        } else {
            SignedDuration::from_secs(seconds.max(0))
        }
    };
    added.checked_add(stays).ok()
}

fn tolerates(toleration: &k8s_openapi::api::core::v1::Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let is_any = toleration.operator.as_deref() == Some("Exists");
    toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && (is_any
            || (!key.is_empty()
                && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()))
}
