//! What happened to a pod so far, as data: the input of every decision, the part of a pod that outlives the process.
//!
//! [`Observed::begin`] marks what an action starts, [`Observed::note`] what came of it. Neither decides anything. A pod is
//! kept on disk with its `Observed`; [`Observed::after_restart`] is how it looks to a new process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use super::actions::PodAction;
use super::back_off::{FORGIVEN_AFTER, after};
use super::spec;
use super::status::has_ended;

/// How long after a configuration error the container is tried again, if nothing changed before.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(10);

/// Everything that is known of one pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Hash)]
pub struct Observed {
    /// When the agent took the pod.
    pub started_at: Option<Timestamp>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Why it is never run.
    pub refusal: Option<Refusal>,
    /// Its volumes.
    #[serde(skip)]
    pub volumes: Volumes,
    /// When what is in them must be renewed: a token ends.
    #[serde(skip)]
    pub renew_at: Option<Timestamp>,
    /// Set when every container is to stop for good though the pod is not deleted.
    pub doom: Option<Doom>,
    /// The pod's object is gone from the API: what runs must stop and there is nobody to report to.
    pub is_gone: bool,
    /// The containers by name. Boxed: a map has room for eleven in each of its nodes, and most pods have one.
    pub containers: BTreeMap<String, Box<ContainerObserved>>,
}

/// Why a pod failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub struct Refusal {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The end of a pod that the node itself decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub struct Doom {
    /// Why.
    pub refusal: Refusal,
    /// How long its containers may take at most; none means the pod's own grace period.
    pub grace: Option<Duration>,
    /// Whether the node ends it for its own sake, which the condition `DisruptionTarget` says.
    pub is_disruption: bool,
}

impl Doom {
    /// A pod that fails by what it says itself.
    pub fn own(refusal: Refusal) -> Doom {
        Doom { refusal, grace: None, is_disruption: false }
    }
}

/// The state of a pod's volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Volumes {
    /// Not there.
    #[default]
    Missing,
    /// Being made.
    Mounting {
        /// Attempts that failed before.
        failures: u32,
    },
    /// There.
    Mounted,
    /// Could not be made.
    Failed {
        /// Attempts in a row.
        failures: u32,
        /// When the last one failed.
        at: Timestamp,
        /// Why.
        message: String,
    },
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Hash)]
pub struct ContainerObserved {
    /// Its module.
    #[serde(skip)]
    pub image: Image,
    /// The digest reference that the image was resolved to; kept over restarts.
    pub image_id: String,
    /// What it does.
    pub state: State,
    /// How the run before ended.
    pub last: Option<Termination>,
    /// Starts after the first.
    pub restarts: u32,
    /// Ends in a row without a long run between them.
    pub crashes: u32,
}

/// The state of a container's module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Image {
    /// Not looked for.
    #[default]
    Unknown,
    /// Being fetched and compiled.
    Pulling {
        /// Attempts that failed before.
        failures: u32,
    },
    /// Ready to start.
    Present,
    /// Could not be had.
    Failed {
        /// `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`, `SignatureValidationFailed` and so on.
        reason: String,
        /// Attempts in a row.
        failures: u32,
        /// When the last one failed.
        at: Timestamp,
        /// Why.
        message: String,
    },
}

/// What a container does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Hash)]
pub enum State {
    /// It has never run.
    #[default]
    Waiting,
    /// It is being started.
    Starting,
    /// It could not be started as it is configured.
    Misconfigured {
        /// Why.
        message: String,
        /// When that was found.
        at: Timestamp,
    },
    /// It runs.
    Running(Running),
    /// It ended.
    Ended(Termination),
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Hash)]
pub struct Running {
    /// Of this run.
    pub id: String,
    /// Since when.
    pub since: Timestamp,
    /// What is to be done right after its start is not done yet; until then it is neither started nor probed.
    #[serde(default)]
    pub is_starting_up: bool,
    /// Its startup probe passed, or it has none.
    pub is_started: bool,
    /// Its readiness probe passed, or it has none.
    pub is_ready: bool,
    /// It must stop and why: a probe failed.
    pub unhealthy: Option<String>,
    /// It was asked to stop, and until when it may take.
    pub kill_at: Option<Timestamp>,
    /// It was killed; the end follows.
    pub is_killed: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub struct Termination {
    /// The exit code.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerStatusUnknown`.
    pub reason: String,
    /// More, if there is more to say.
    pub message: Option<String>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Of that run.
    pub id: String,
}

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Has it come up?
    Startup,
    /// Does it take requests?
    Readiness,
    /// Should it be restarted?
    Liveness,
}

/// Something that came of an action, or of the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The volumes are there, and up to date.
    Mounted {
        /// Until when, if something in them ends.
        renew_at: Option<Timestamp>,
    },
    /// They could not be made.
    MountFailed(String),
    /// The module is here and compiled.
    Pulled {
        /// Whose.
        container: String,
        /// The reference with the digest.
        image_id: String,
    },
    /// It could not be had.
    PullFailed {
        /// Whose.
        container: String,
        /// One word, such as `ErrImagePull`.
        reason: String,
        /// Why.
        message: String,
    },
    /// What is here was not verified as the policy of the moment wants it: it must be pulled again before the container starts.
    Unverified {
        /// Whose.
        container: String,
    },
    /// The container runs.
    Started {
        /// Which.
        container: String,
        /// Of this run.
        id: String,
    },
    /// It could not be started as it is configured.
    Misconfigured {
        /// Which.
        container: String,
        /// Why.
        message: String,
    },
    /// Its run ended.
    Ended {
        /// Which.
        container: String,
        /// Of the run.
        id: String,
        /// The exit code.
        exit_code: i32,
        /// One word.
        reason: String,
        /// More.
        message: Option<String>,
    },
    /// A probe changed its mind.
    Probed {
        /// Which container.
        container: String,
        /// Of the run that was probed.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// What it found, with the message of a failure.
        result: Result<(), String>,
    },
    /// What was to be done right after its start is done, or could not be.
    PostStarted {
        /// Which container.
        container: String,
        /// Of the run.
        id: String,
        /// What came of it.
        result: Result<(), String>,
    },
    /// A ConfigMap or Secret that the pod names changed.
    SourcesChanged,
    /// The pod's object is gone from the API.
    Gone,
    /// The node ends the pod.
    Doomed(Doom),
}

impl Observed {
    /// A pod that the agent just took.
    pub fn new(pod: &Pod, address: IpAddr, refusal: Option<Refusal>, now: Timestamp) -> Observed {
        let mut observed = Observed { started_at: Some(now), address: Some(address), refusal, ..Observed::default() };
        observed.meet(pod);
        observed
    }

    /// Takes note of containers that the pod has and that were not known: it may be given more while it runs.
    pub fn meet(&mut self, pod: &Pod) {
        for container in spec::every_container(pod) {
            self.containers.entry(container.name.clone()).or_default();
        }
    }

    /// How the pod looks to a process that starts: what ran does no more.
    ///
    /// Such an end counts as a restart and says what happened, but nobody is made to wait for it.
    pub fn after_restart(mut self, now: Timestamp) -> Observed {
        self.volumes = Volumes::Missing;
        self.renew_at = None;
        for container in self.containers.values_mut() {
            container.image = Image::Unknown;
            match &container.state {
                State::Running(running) => {
                    container.state = State::Ended(Termination {
                        exit_code: 255,
                        reason: "ContainerStatusUnknown".to_owned(),
                        message: Some("the worker restarted while the container ran".to_owned()),
                        started_at: Some(running.since),
                        finished_at: now,
                        id: running.id.clone(),
                    });
                    container.crashes = 0;
                }
                State::Starting | State::Misconfigured { .. } => container.state = State::Waiting,
                State::Waiting | State::Ended(_) => {}
            }
        }
        self
    }

    /// Whether everything is as it should be and nothing is under way: the volumes are there for good, all containers run and are
    /// ready, but for init containers that have ended well.
    pub fn is_settled(&self) -> bool {
        let is_settled = |container: &ContainerObserved| {
            container.image == Image::Present
                && match &container.state {
                    State::Running(running) => {
                        !running.is_starting_up
                            && running.is_started
                            && running.is_ready
                            && running.unhealthy.is_none()
                            && running.kill_at.is_none()
                            && !running.is_killed
                    }
                    State::Ended(end) => end.exit_code == 0,
                    State::Waiting | State::Starting | State::Misconfigured { .. } => false,
                }
        };
        self.refusal.is_none()
            && self.doom.is_none()
            && !self.is_gone
            && self.volumes == Volumes::Mounted
            && self.renew_at.is_none()
            && !self.is_quiet()
            && self.containers.values().all(|container| is_settled(container))
    }

    /// What is not written down of a pod that is settled is as it must have been.
    pub fn settle(&mut self) {
        self.volumes = Volumes::Mounted;
        for container in self.containers.values_mut() {
            container.image = Image::Present;
        }
    }

    /// Whether nothing of the pod runs or is being started.
    pub fn is_quiet(&self) -> bool {
        !self.containers.values().any(|c| matches!(c.state, State::Running(_) | State::Starting))
    }

    /// When a container that could not be configured is tried again.
    pub fn config_retry_at(at: Timestamp) -> Timestamp {
        after(at, CONFIG_RETRY)
    }

    /// Marks what an action starts, so that it is not decided twice.
    pub fn begin(&mut self, action: &PodAction, now: Timestamp) {
        match action {
            PodAction::Mount => {
                let failures = if let Volumes::Failed { failures, .. } = &self.volumes { *failures } else { 0 };
                self.volumes = Volumes::Mounting { failures };
            }
            PodAction::Renew => self.renew_at = None,
            PodAction::Pull { container } => self.with(container, |c| {
                let failures = if let Image::Failed { failures, .. } = &c.image { *failures } else { 0 };
                c.image = Image::Pulling { failures };
            }),
            PodAction::Start { container } => self.with(container, |c| {
                if let State::Ended(termination) = &c.state {
                    c.last = Some(termination.clone());
                    c.restarts += 1;
                }
                c.state = State::Starting;
            }),
            PodAction::Stop { container, grace, .. } => self.with_running(container, |r| {
                r.kill_at = Some(after(now, SignedDuration::try_from(*grace).unwrap_or(SignedDuration::MAX)));
                r.is_ready = false;
            }),
            PodAction::Kill { container } => self.with_running(container, |r| r.is_killed = true),
            PodAction::Doom(refusal) => self.doom = Some(Doom::own(refusal.clone())),
            PodAction::Finish => {}
        }
    }

    /// Takes note of what came of an action. What is of an earlier run is ignored.
    pub fn note(&mut self, pod: &Pod, happening: Happening, now: Timestamp) {
        match happening {
            Happening::Mounted { renew_at } => {
                self.volumes = Volumes::Mounted;
                self.renew_at = renew_at;
            }
            Happening::MountFailed(message) => {
                let failures = match &self.volumes {
                    Volumes::Mounting { failures } => failures + 1,
                    _ => 1,
                };
                self.volumes = Volumes::Failed { failures, at: now, message };
            }
            Happening::Pulled { container, image_id } => self.with(&container, |c| {
                c.image = Image::Present;
                c.image_id = image_id;
            }),
            Happening::PullFailed { container, reason, message } => self.with(&container, |c| {
                let failures = match &c.image {
                    Image::Pulling { failures } => failures + 1,
                    _ => 1,
                };
                c.image = Image::Failed { reason, failures, at: now, message };
            }),
            Happening::Unverified { container } => self.with(&container, |c| {
                c.image = Image::Unknown;
                c.take_start_back();
            }),
            Happening::Started { container, id } => self.note_started(pod, &container, id, now),
            Happening::Misconfigured { container, message } => {
                self.with(&container, |c| c.state = State::Misconfigured { message, at: now });
            }
            Happening::Ended { container, id, exit_code, reason, message } => {
                self.note_ended(
                    &container,
                    Termination { exit_code, reason, message, started_at: None, finished_at: now, id },
                );
            }
            Happening::Probed { container, id, kind, result } => self.with_running(&container, |r| {
                if r.id == id {
                    note_probe(r, kind, result);
                }
            }),
            Happening::PostStarted { container, id, result } => {
                let definition = spec::container(pod, &container);
                let has_startup = definition.as_ref().is_some_and(|c| c.startup_probe.is_some());
                let has_readiness = definition.as_ref().is_some_and(|c| c.readiness_probe.is_some());
                self.with_running(&container, |r| match result {
                    _ if r.id != id => {}
                    Ok(()) => {
                        r.is_starting_up = false;
                        r.is_started = !has_startup;
                        r.is_ready = r.is_started && !has_readiness && r.kill_at.is_none();
                    }
                    Err(_) => r.unhealthy = Some("FailedPostStartHook".to_owned()),
                });
            }
            Happening::SourcesChanged => self.retry_configuration(),
            Happening::Gone => self.is_gone = true,
            // One that came to its end by itself keeps it.
            Happening::Doomed(_) if has_ended(pod, self) => {}
            Happening::Doomed(doom) => self.doom = Some(doom),
        }
    }

    fn note_started(&mut self, pod: &Pod, container: &str, id: String, now: Timestamp) {
        let has = |probe: fn(&k8s_openapi::api::core::v1::Container) -> bool| {
            spec::container(pod, container).is_some_and(|c| probe(&c))
        };
        let is_starting_up = has(|c| spec::post_start(c).is_some());
        let is_started = !is_starting_up && !has(|c| c.startup_probe.is_some());
        let is_ready = is_started && !has(|c| c.readiness_probe.is_some());
        self.with(container, |c| {
            c.state = State::Running(Running {
                id,
                since: now,
                is_starting_up,
                is_started,
                is_ready,
                unhealthy: None,
                kill_at: None,
                is_killed: false,
            });
        });
    }

    fn note_ended(&mut self, container: &str, mut termination: Termination) {
        self.with(container, |c| {
            if let State::Running(running) = &c.state {
                if running.id != termination.id {
                    return;
                }
                termination.started_at = Some(running.since);
                let ran = termination.finished_at.duration_since(running.since);
                c.crashes = if ran >= FORGIVEN_AFTER { 1 } else { c.crashes + 1 };
            } else {
                termination.started_at = Some(termination.finished_at);
                c.crashes += 1;
            }
            c.state = State::Ended(termination);
        });
    }

    fn retry_configuration(&mut self) {
        for container in self.containers.values_mut() {
            if matches!(container.state, State::Misconfigured { .. }) {
                container.take_start_back();
            }
        }
        if matches!(self.volumes, Volumes::Failed { .. }) {
            self.volumes = Volumes::Missing;
        }
    }

    fn with(&mut self, container: &str, change: impl FnOnce(&mut ContainerObserved)) {
        if let Some(container) = self.containers.get_mut(container) {
            change(container);
        }
    }

    fn with_running(&mut self, container: &str, change: impl FnOnce(&mut Running)) {
        self.with(container, |c| {
            if let State::Running(running) = &mut c.state {
                change(running);
            }
        });
    }
}

impl ContainerObserved {
    /// Is as before its start began.
    fn take_start_back(&mut self) {
        self.state = match self.last.take() {
            Some(termination) => {
                self.restarts = self.restarts.saturating_sub(1);
                State::Ended(termination)
            }
            None => State::Waiting,
        };
    }
}

fn note_probe(running: &mut Running, kind: ProbeKind, result: Result<(), String>) {
    match (kind, result) {
        (ProbeKind::Startup, Ok(())) => running.is_started = true,
        (ProbeKind::Startup | ProbeKind::Liveness, Err(message)) => running.unhealthy = Some(message),
        (ProbeKind::Readiness, result) => running.is_ready = result.is_ok() && running.kill_at.is_none(),
        (ProbeKind::Liveness, Ok(())) => {}
    }
}
