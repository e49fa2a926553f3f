//! The columns of pods, above all the status, which is read from everything that a pod says of itself.

use jiff::Timestamp;
use serde_json::Value;

use crate::metadata;
use crate::resource::Column;
use crate::table::cells::{AGE, NAME, NONE, column, integer, list, or_none, since, text, wide};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "How many containers are ready, of how many.", |pod, _| ready(pod).into()),
    column("Status", "What the pod is doing.", |pod, _| status(pod).into()),
    column("Restarts", "How often its containers were started anew, and when last.", |pod, now| {
        restarts(pod, now).into()
    }),
    AGE,
    wide("IP", "Its address.", |pod, _| or_none(text(pod, "/status/podIP")).into()),
    wide("Node", "Where it runs.", |pod, _| or_none(text(pod, "/spec/nodeName")).into()),
    wide("Nominated Node", "Where it is going to run.", |pod, _| {
        or_none(text(pod, "/status/nominatedNodeName")).into()
    }),
    wide("Readiness Gates", "How many of its gates are open.", |pod, _| gates(pod).into()),
];

fn statuses<'a>(pod: &'a Value, field: &str) -> &'a [Value] {
    pod.get("status").map_or(&[], |status| list(status, &format!("/{field}")))
}

fn is_ready(container: &Value) -> bool {
    container.get("ready").and_then(Value::as_bool).unwrap_or(false)
}

fn ready(pod: &Value) -> String {
    let ready = statuses(pod, "containerStatuses").iter().filter(|container| is_ready(container)).count();
    format!("{ready}/{}", list(pod, "/spec/containers").len())
}

/// The word that says what the pod is doing: the phase, or better what a container says of itself.
fn status(pod: &Value) -> String {
    let mut status = match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase"),
        reason => reason,
    }
    .to_owned();
    if list(pod, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/type") == "PodScheduled" && text(condition, "/reason") == "SchedulingGated")
    {
        "SchedulingGated".clone_into(&mut status);
    }
    match initializing(pod) {
        Some(text) => status = text,
        None => {
            let mut has_running = false;
            for container in statuses(pod, "containerStatuses").iter().rev() {
                match state(container) {
                    Some(text) => status = text,
                    None => has_running |= is_ready(container) && container.pointer("/state/running").is_some(),
                }
            }
            if status == "Completed" && has_running {
                let ready = list(pod, "/status/conditions")
                    .iter()
                    .any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True");
                if ready { "Running" } else { "NotReady" }.clone_into(&mut status);
            }
        }
    }
    if metadata::deletion_timestamp(pod).is_some() {
        return if text(pod, "/status/reason") == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    status
}

/// Why a container waits or how it ended; none while it runs.
fn state(container: &Value) -> Option<String> {
    if let Some(reason) =
        container.pointer("/state/waiting/reason").and_then(Value::as_str).filter(|reason| !reason.is_empty())
    {
        return Some(reason.to_owned());
    }
    let ended = container.pointer("/state/terminated")?;
    Some(match (text(ended, "/reason"), integer(ended, "/signal")) {
        ("", 0) => format!("ExitCode:{}", integer(ended, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    })
}

/// `Init:...` for the first init container that has not ended well.
fn initializing(pod: &Value) -> Option<String> {
    let total = list(pod, "/spec/initContainers").len();
    for (index, container) in statuses(pod, "initContainerStatuses").iter().enumerate() {
        if let Some(ended) = container.pointer("/state/terminated") {
            if integer(ended, "/exitCode") == 0 {
                continue;
            }
            return Some(format!("Init:{}", state(container).unwrap_or_default()));
        }
        return Some(match text(container, "/state/waiting/reason") {
            "" | "PodInitializing" => format!("Init:{index}/{total}"),
            reason => format!("Init:{reason}"),
        });
    }
    None
}

fn restarts(pod: &Value, now: Timestamp) -> String {
    let field = if initializing(pod).is_some() { "initContainerStatuses" } else { "containerStatuses" };
    let containers = statuses(pod, field);
    let count: i64 =
        containers.iter().map(|container| integer(container, "/restartCount")).fold(0, i64::saturating_add);
    let last =
        containers.iter().filter_map(|container| container.pointer("/lastState/terminated/finishedAt")?.as_str()).max();
    match last.filter(|_| count > 0) {
        Some(last) => format!("{count} ({} ago)", since(Some(last), now)),
        None => count.to_string(),
    }
}

fn gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = |gate: &&Value| {
        let kind = text(gate, "/conditionType");
        list(pod, "/status/conditions")
            .iter()
            .any(|condition| text(condition, "/type") == kind && text(condition, "/status") == "True")
    };
    format!("{}/{}", gates.iter().filter(open).count(), gates.len())
}
