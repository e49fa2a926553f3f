//! Telling the API of a pod: its status, its end, its events.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use serde_json::{Value, json};
use shoal_client::{DeleteOptions, Patch};
use tokio::time::error::Elapsed;

use crate::context::Context;
use crate::events::Events;
use crate::eviction::EVICTED;
use crate::limits::{EVENT_CHARACTERS, WRITE_TIMEOUT};
use crate::pod::observed::{Image, Observed, State};
use crate::pod::probe;
use crate::pod::{Happening, spec};

/// Why a container waits that is only starting.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// The fields of a status that must be cleared when they are absent.
const CLEARED: [&str; 6] =
    ["reason", "message", "podIP", "podIPs", "initContainerStatuses", "ephemeralContainerStatuses"];

/// Writes the status, if the pod is still the one that we know (by uid); that of a static pod to its mirror.
///
/// # Errors
/// A sentence; the write should be tried again. A pod that is gone or another is no error.
pub async fn write_status(context: &Context, pod: &Pod, status: &PodStatus) -> Result<(), String> {
    let uid = if spec::is_static(pod) { context.mirror_uid(pod) } else { Some(spec::uid(pod).to_owned()) };
    // Without a mirror there is nothing to write to yet; its coming is told.
    let Some(uid) = uid else { return Ok(()) };
    let write = async {
        // In its turn: of hundreds that wait none has a patch yet.
        let patch = Patch::Strategic(status_patch(&uid, status).map_err(|error| error.to_string())?);
        match context.client.patch_status::<Pod>(spec::namespace(pod), spec::name(pod), &patch).await {
            Ok(_) => Ok(()),
            // Gone, or another pod of that name: the watch will say so.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    };
    in_turn(context, write).await.unwrap_or_else(|_| Err(format!("no answer within {WRITE_TIMEOUT:?}")))
}

/// Makes a write when there is a place for it; its time begins then.
async fn in_turn<T>(context: &Context, write: impl Future<Output = T>) -> Result<T, Elapsed> {
    // Nobody closes the semaphore.
    let _place = context.pod_writes.acquire().await.ok();
    tokio::time::timeout(WRITE_TIMEOUT, write).await
}

/// Whether a pod is on its way to run for the first time, and nothing is wrong with it.
pub fn is_starting(status: &PodStatus) -> bool {
    let is_ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let containers = || status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let is_well = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        let waiting = state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.as_deref());
        container.restart_count == 0
            && state.is_none_or(|state| state.terminated.is_none())
            && waiting.is_none_or(|reason| STARTING.contains(&reason))
    };
    matches!(status.phase.as_deref(), Some("Pending" | "Running")) && !is_ready && containers().all(is_well)
}

fn status_patch(uid: &str, status: &PodStatus) -> serde_json::Result<Value> {
    let mut status = serde_json::to_value(status)?;
    if let Some(fields) = status.as_object_mut() {
        for name in CLEARED {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    // Conditions are merged one by one, and what is not said of one would stay as it was said before.
    for condition in status["conditions"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for name in ["reason", "message"] {
            condition.entry(name).or_insert(Value::Null);
        }
    }
    Ok(json!({"metadata": {"uid": uid}, "status": status}))
}

/// Writes the last status and removes the object for good.
///
/// # Errors
/// A sentence; it should be tried again. A pod that is gone or another is no error.
pub async fn remove(context: &Context, pod: &Pod, status: &PodStatus) -> Result<(), String> {
    write_status(context, pod, status).await?;
    let options = DeleteOptions { grace_seconds: Some(0), uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
    let delete = context.client.delete::<Pod>(spec::namespace(pod), spec::name(pod), &options);
    match in_turn(context, delete).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is_not_found() || error.is_conflict() => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {WRITE_TIMEOUT:?}")),
    }
}

/// Whether a status of the API's says what `own` says. Conditions of others may stand beside ours, and fields that are not ours.
pub fn says(status: &PodStatus, own: &PodStatus) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let is_same = |own: &PodCondition, other: &PodCondition| {
        own.type_ == other.type_
            && own.status == other.status
            && own.reason == other.reason
            && own.message == other.message
            && own.last_transition_time == other.last_transition_time
            && own.observed_generation == other.observed_generation
    };
    own.conditions.iter().flatten().all(|own| conditions.iter().any(|other| is_same(own, other)))
        && status.phase == own.phase
        && status.reason == own.reason
        && status.message == own.message
        && status.host_ip == own.host_ip
        && status.host_ips == own.host_ips
        && status.pod_ip == own.pod_ip
        && status.pod_ips == own.pod_ips
        && status.start_time == own.start_time
        && status.observed_generation == own.observed_generation
        && status.container_statuses == own.container_statuses
        && status.init_container_statuses == own.init_container_statuses
        && status.ephemeral_container_statuses == own.ephemeral_container_statuses
}

/// Our own status with the conditions of others that stand in `theirs`: readiness gates and the like.
pub fn beside_others(mut own: PodStatus, theirs: Option<&PodStatus>) -> PodStatus {
    let conditions = own.conditions.get_or_insert_default();
    for condition in theirs.and_then(|status| status.conditions.as_deref()).unwrap_or_default() {
        if !conditions.iter().any(|known| known.type_ == condition.type_) {
            conditions.push(condition.clone());
        }
    }
    own
}

/// The events that a happening deserves.
pub fn events(events: &Events, pod: &Pod, before: &Observed, after: &Observed, happening: &Happening) {
    match happening {
        Happening::MountFailed(message) => events.warning(pod, None, "FailedMount", message),
        Happening::PullFailed { container, reason, message } => {
            let image = spec::container(pod, container).and_then(|c| c.image.clone()).unwrap_or_default();
            events.warning(pod, Some(container), "Failed", &format!("Failed to pull image {image:?}: {message}"));
            events.warning(pod, Some(container), "Failed", &format!("Error: {reason}"));
            let is_again = matches!(after.containers.get(container).map(|c| &c.image), Some(Image::Failed { failures, .. }) if *failures > 1);
            if is_again {
                events.normal(pod, Some(container), "BackOff", &format!("Back-off pulling image {image:?}"));
                events.warning(pod, Some(container), "Failed", "Error: ImagePullBackOff");
            }
        }
        Happening::Started { container, .. } => {
            events.normal(pod, Some(container), "Created", &format!("Created container: {container}"));
            events.normal(pod, Some(container), "Started", &format!("Started container {container}"));
        }
        Happening::Ended { container, message, .. } => {
            if let Some(message) = message {
                let message: String = message.chars().take(EVENT_CHARACTERS).collect();
                events.warning(pod, Some(container), "Failed", &message);
            }
            back_off_event(events, pod, before, after, container);
        }
        Happening::Probed { container, kind, result: Err(message), .. } => {
            events.warning(
                pod,
                Some(container),
                "Unhealthy",
                &format!("{} probe failed: {message}", probe::name(*kind)),
            );
        }
        Happening::PostStarted { container, result: Err(message), .. } => {
            events.warning(pod, Some(container), "FailedPostStartHook", &format!("PostStartHook failed: {message}"));
        }
        Happening::Doomed(doom) if after.doom.as_ref() == Some(doom) && doom.refusal.reason == EVICTED => {
            events.warning(pod, None, EVICTED, &doom.refusal.message);
        }
        _ => {}
    }
}

fn back_off_event(events: &Events, pod: &Pod, before: &Observed, after: &Observed, container: &str) {
    let (Some(was), Some(is), Some(definition)) =
        (before.containers.get(container), after.containers.get(container), spec::container(pod, container))
    else {
        return;
    };
    let State::Ended(end) = &is.state else { return };
    let is_new = matches!(was.state, State::Running(_) | State::Starting);
    if is_new && is.crashes > 1 && !spec::is_deleted(pod) && spec::restarts_after(pod, &definition, end.exit_code) {
        let message = format!(
            "Back-off restarting failed container {container} in pod {}_{}({})",
            spec::name(pod),
            spec::namespace(pod),
            spec::uid(pod)
        );
        events.warning(pod, Some(container), "BackOff", &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: &str, ready: &str, state: &Value) -> PodStatus {
        serde_json::from_value(json!({
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}],
        }))
        .expect("a status")
    }

    #[test]
    fn only_a_pod_on_its_way_may_wait_to_be_reported() {
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        assert!(is_starting(&status("Pending", "False", &creating)));
        assert!(is_starting(&status("Running", "False", &json!({"running": {}}))));
        assert!(!is_starting(&status("Running", "True", &json!({"running": {}}))));
        assert!(!is_starting(&status("Pending", "False", &json!({"waiting": {"reason": "ErrImagePull"}}))));
        assert!(!is_starting(&status("Running", "False", &json!({"terminated": {"exitCode": 1}}))));
        assert!(!is_starting(&status("Failed", "False", &creating)));
    }
}
