//! What to report of a pod: `status` as the kubelet would write it.
//!
//! Pure. `pod.status` gives the conditions' last transition times and what others wrote (readiness gates); everything
//! else comes from [`Observed`].

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{ContainerObserved, Image, Observed, State, Termination, Volumes};
use super::{ephemeral, spec};

/// The scheme of container ids.
const ID_SCHEME: &str = "shoal://";

/// What the containers come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// The status to report. `host_address` is the node's.
pub fn pod_status(pod: &Pod, observed: &Observed, host_address: &str, now: Timestamp) -> PodStatus {
    let phase = phase(pod, observed);
    let statuses: Vec<ContainerStatus> =
        spec::containers(pod).iter().map(|c| container_status(pod, observed, c)).collect();
    let init_statuses: Vec<ContainerStatus> =
        spec::init_containers(pod).iter().map(|c| container_status(pod, observed, c)).collect();
    let ephemeral_statuses: Vec<ContainerStatus> = ephemeral::definitions(pod)
        .map(|c| ContainerStatus { ready: false, ..container_status(pod, observed, &c) })
        .collect();
    let failure = observed.refusal.as_ref().or(observed.doom.as_ref().map(|doom| &doom.refusal));
    let own = observed.address.filter(|_| observed.refusal.is_none());
    let address = own.map(|own| if spec::has_host_network(pod) { host_address.to_owned() } else { own.to_string() });
    let conditions = conditions(pod, observed, phase, &statuses, &init_statuses, now);
    // A pod that is never run has no containers to speak of: clients would show that they wait, and not why it failed.
    let shown = |statuses: Vec<ContainerStatus>| observed.refusal.is_none().then_some(statuses);
    let shown_if_any = |statuses: Vec<ContainerStatus>| shown(statuses).filter(|statuses| !statuses.is_empty());
    PodStatus {
        phase: Some(phase.name().to_owned()),
        reason: failure.map(|f| f.reason.clone()),
        message: failure.map(|f| f.message.clone()),
        conditions: Some(conditions),
        host_ip: Some(host_address.to_owned()),
        host_ips: Some(vec![HostIP { ip: host_address.to_owned() }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        start_time: observed.started_at.map(time),
        container_statuses: shown(statuses),
        init_container_statuses: shown_if_any(init_statuses),
        ephemeral_container_statuses: shown_if_any(ephemeral_statuses),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// As the API keeps it, in whole seconds, so that what comes back from there is what was said.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Whether the pod came to its end: no container of it starts again.
pub fn has_ended(pod: &Pod, observed: &Observed) -> bool {
    matches!(phase(pod, observed), Phase::Succeeded | Phase::Failed)
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

/// The phase (Kubernetes, "Pod Lifecycle", pod phase). A pod that is deleted and quiet is judged by its exit codes alone.
fn phase(pod: &Pod, observed: &Observed) -> Phase {
    if observed.refusal.is_some() || observed.doom.is_some() {
        return Phase::Failed;
    }
    let is_ending = spec::is_deleted(pod) && observed.is_quiet();
    for container in spec::init_containers(pod).iter().filter(|c| !spec::is_sidecar(c)) {
        match exit_code(observed, container) {
            Some(0) => {}
            Some(code) if is_ending || !spec::restarts_after(pod, container, code) => return Phase::Failed,
            _ if is_ending => break,
            _ => return Phase::Pending,
        }
    }
    let (mut running, mut waiting, mut ended, mut failed, mut restarting) = (0, 0, 0, 0, false);
    for container in spec::containers(pod) {
        let seen = observed.containers.get(&container.name);
        match (seen.map(|c| &c.state), exit_code(observed, container)) {
            (Some(State::Running(_)), _) => running += 1,
            (_, Some(code)) => {
                ended += 1;
                failed += usize::from(code != 0);
                restarting |= spec::restarts_after(pod, container, code);
            }
            _ => waiting += 1,
        }
    }
    let all_end = |failed: usize| if failed == 0 { Phase::Succeeded } else { Phase::Failed };
    match (running, waiting, ended) {
        (0, _, n) if is_ending && n > 0 => all_end(failed),
        (_, waiting, _) if waiting > 0 => Phase::Pending,
        (running, _, _) if running > 0 => Phase::Running,
        (_, _, 0) => Phase::Pending,
        _ if restarting => Phase::Running,
        _ => all_end(failed),
    }
}

/// The exit code of a container that ended and does not run again yet.
fn exit_code(observed: &Observed, container: &Container) -> Option<i32> {
    let seen = observed.containers.get(&container.name)?;
    match (&seen.state, &seen.last) {
        (State::Ended(end), _) => Some(end.exit_code),
        (State::Starting | State::Misconfigured { .. }, Some(last)) => Some(last.exit_code),
        _ => None,
    }
}

fn container_status(pod: &Pod, observed: &Observed, container: &Container) -> ContainerStatus {
    let nothing = ContainerObserved::default();
    let seen = observed.containers.get(&container.name).map_or(&nothing, Box::as_ref);
    let (state, last) = states(pod, observed, container, seen);
    let running = match &seen.state {
        State::Running(running) => Some(running),
        _ => None,
    };
    let ended_well = matches!(&seen.state, State::Ended(end) if end.exit_code == 0);
    let is_plain_init = spec::is_plain_init(pod, &container.name);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: seen.image_id.clone(),
        container_id: container_id(seen),
        ready: if is_plain_init { ended_well } else { running.is_some_and(|r| r.is_ready && r.is_started) },
        started: Some(running.is_some_and(|r| r.is_started)),
        restart_count: i32::try_from(seen.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: last.map(|end| ContainerState { terminated: Some(terminated(end)), ..ContainerState::default() }),
        ..ContainerStatus::default()
    }
}

fn container_id(seen: &ContainerObserved) -> Option<String> {
    let id = match &seen.state {
        State::Running(running) => &running.id,
        State::Ended(end) => &end.id,
        _ => &seen.last.as_ref()?.id,
    };
    Some(format!("{ID_SCHEME}{id}"))
}

/// The state to show, and the run before it.
fn states<'a>(
    pod: &Pod,
    observed: &Observed,
    container: &Container,
    seen: &'a ContainerObserved,
) -> (ContainerState, Option<&'a Termination>) {
    match &seen.state {
        State::Running(running) => {
            let running = ContainerStateRunning { started_at: Some(time(running.since)) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, seen.last.as_ref())
        }
        State::Ended(end) if will_restart(pod, observed, container, end) => {
            (waiting(restart_reason(container, seen)), Some(end))
        }
        State::Ended(end) => {
            (ContainerState { terminated: Some(terminated(end)), ..ContainerState::default() }, seen.last.as_ref())
        }
        State::Misconfigured { message, .. } => {
            (waiting(("CreateContainerConfigError", Some(message.clone()))), seen.last.as_ref())
        }
        State::Waiting | State::Starting => {
            (waiting(waiting_reason(pod, observed, container, seen)), seen.last.as_ref())
        }
    }
}

fn will_restart(pod: &Pod, observed: &Observed, container: &Container, end: &Termination) -> bool {
    let is_over = spec::is_deleted(pod) || observed.is_gone || observed.doom.is_some() || observed.refusal.is_some();
    !is_over && spec::restarts_after(pod, container, end.exit_code)
}

fn restart_reason(container: &Container, seen: &ContainerObserved) -> (&'static str, Option<String>) {
    if let Image::Failed { .. } = &seen.image {
        return image_reason(container, seen);
    }
    let delay = super::back_off::restart_delay(seen.crashes);
    if delay.is_zero() {
        return ("ContainerCreating", None);
    }
    ("CrashLoopBackOff", Some(format!("back-off {}s restarting failed container={}", delay.as_secs(), container.name)))
}

fn waiting_reason(
    pod: &Pod,
    observed: &Observed,
    container: &Container,
    seen: &ContainerObserved,
) -> (&'static str, Option<String>) {
    if let Image::Failed { .. } = &seen.image {
        return image_reason(container, seen);
    }
    let is_init = spec::init_containers(pod).iter().any(|c| c.name == container.name);
    let is_ephemeral = ephemeral::is_ephemeral(pod, &container.name);
    if !is_ephemeral && !spec::init_containers(pod).is_empty() && (is_init || !init_done(pod, observed)) {
        return ("PodInitializing", None);
    }
    match &observed.volumes {
        Volumes::Failed { message, .. } => ("ContainerCreating", Some(message.clone())),
        _ => ("ContainerCreating", None),
    }
}

fn image_reason(container: &Container, seen: &ContainerObserved) -> (&'static str, Option<String>) {
    let Image::Failed { reason, failures, message, .. } = &seen.image else { return ("ContainerCreating", None) };
    let image = container.image.as_deref().unwrap_or_default();
    match reason.as_str() {
        "InvalidImageName" => ("InvalidImageName", Some(message.clone())),
        "ErrImageNeverPull" => ("ErrImageNeverPull", Some(message.clone())),
        reason if *failures > 1 => {
            ("ImagePullBackOff", Some(format!("Back-off pulling image {image:?}: {reason}: {message}")))
        }
        "SignatureValidationFailed" => ("SignatureValidationFailed", Some(message.clone())),
        _ => ("ErrImagePull", Some(message.clone())),
    }
}

fn waiting((reason, message): (&str, Option<String>)) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(end: &Termination) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(format!("{ID_SCHEME}{}", end.id)),
        exit_code: end.exit_code,
        reason: Some(end.reason.clone()),
        message: end.message.clone(),
        started_at: end.started_at.map(time),
        finished_at: Some(time(end.finished_at)),
        ..ContainerStateTerminated::default()
    }
}

/// Whether every init container is through (a sidecar: started).
fn init_done(pod: &Pod, observed: &Observed) -> bool {
    spec::init_containers(pod).iter().all(|c| init_passed(observed, c))
}

fn init_passed(observed: &Observed, container: &Container) -> bool {
    match observed.containers.get(&container.name).map(|c| &c.state) {
        Some(State::Running(running)) => spec::is_sidecar(container) && running.is_started,
        Some(State::Ended(end)) => end.exit_code == 0,
        _ => false,
    }
}

fn conditions(
    pod: &Pod,
    observed: &Observed,
    phase: Phase,
    statuses: &[ContainerStatus],
    init_statuses: &[ContainerStatus],
    now: Timestamp,
) -> Vec<PodCondition> {
    let sandbox = matches!(observed.volumes, Volumes::Mounted)
        && observed.refusal.is_none()
        && phase != Phase::Succeeded
        && phase != Phase::Failed;
    let names = |unready: Vec<&str>| unready.join(" ");
    let uninitialized: Vec<&str> =
        spec::init_containers(pod).iter().filter(|c| !init_passed(observed, c)).map(|c| c.name.as_str()).collect();
    let sidecars = init_statuses.iter().filter(|s| spec::container(pod, &s.name).is_some_and(|c| spec::is_sidecar(&c)));
    let unready: Vec<&str> = statuses.iter().chain(sidecars).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    let initialized = if uninitialized.is_empty() || phase == Phase::Succeeded {
        Verdict::yes()
    } else {
        Verdict::no(
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", names(uninitialized)),
        )
    };
    let initialized =
        if phase == Phase::Succeeded { Verdict { reason: Some("PodCompleted"), ..initialized } } else { initialized };
    let containers_ready = match phase {
        Phase::Succeeded => Verdict::no("PodCompleted", String::new()),
        Phase::Failed => Verdict::no("PodFailed", String::new()),
        _ if unready.is_empty() => Verdict::yes(),
        _ => Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", names(unready))),
    };
    let ready = match missing_gate(pod) {
        Some(gate) if containers_ready.is_true => Verdict::no(
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {gate:?} does not exist."),
        ),
        _ => containers_ready.clone(),
    };
    let disruption = observed.doom.as_ref().filter(|doom| doom.is_disruption).map(|doom| Verdict {
        is_true: true,
        reason: Some("TerminationByKubelet"),
        message: doom.refusal.message.clone(),
    });
    [
        ("PodReadyToStartContainers", Verdict { is_true: sandbox, reason: None, message: String::new() }),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ]
    .into_iter()
    .chain(disruption.map(|verdict| ("DisruptionTarget", verdict)))
    .map(|(name, verdict)| condition(pod, name, &verdict, now))
    .collect()
}

/// A readiness gate whose condition nobody has set to true.
fn missing_gate(pod: &Pod) -> Option<&str> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_deref()?;
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let is_set = |name: &str| conditions.iter().any(|c| c.type_ == name && c.status == "True");
    gates.iter().map(|g| g.condition_type.as_str()).find(|name| !is_set(name))
}

#[derive(Debug, Clone)]
struct Verdict {
    is_true: bool,
    reason: Option<&'static str>,
    message: String,
}

impl Verdict {
    fn yes() -> Verdict {
        Verdict { is_true: true, reason: None, message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Verdict {
        Verdict { is_true: false, reason: Some(reason), message }
    }
}

/// The condition; its transition time is kept while its status is.
fn condition(pod: &Pod, name: &str, verdict: &Verdict, now: Timestamp) -> PodCondition {
    let status = if verdict.is_true { "True" } else { "False" };
    let known = pod.status.as_ref().and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == name));
    let since = known.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone()).unwrap_or(time(now));
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: (!verdict.message.is_empty()).then(|| verdict.message.clone()),
        last_transition_time: Some(since),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}
