//! One pod's worker: it carries out what [`pod_actions`] decides, feeds back what came of it, and reports.
//!
//! It sleeps until something happens, a time comes that [`next_wake`] names, or the pod's object changes. What takes time runs
//! in tasks that answer with a [`Message`]; the worker itself never waits for the API, a disk or a guest.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use shoal_link::tasks::spawn_connection;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::container::{self, Run};
use crate::context::Context;
use crate::eviction::pressure;
use crate::hooks::Hook;
use crate::limits::{HAPPENING_QUEUE, REST_AFTER, TOKEN_RETRY};
use crate::places::{Place, Places};
use crate::pod::back_off::after;
use crate::pod::observed::{Image, State, Volumes};
use crate::pod::status::has_ended;
use crate::pod::{Happening, Observed, PodAction, next_wake, pod_actions, pod_status, spec, support, tokens};
use crate::pod_record::PodRecord;
use crate::pod_view::PodView;
use crate::resting::{Resting, Woken, may_rest};
use crate::telling::Telling;
use crate::{mount, probing, reporting, shutdown};

/// What a worker's tasks tell it.
pub enum Message {
    /// Something came of an action. Boxed, since a queue has room for many from the start.
    Happened(Box<Happening>),
    /// A container runs; the run's first happening comes with it.
    Launched {
        /// Which container.
        container: String,
        /// Its run.
        run: Box<Run>,
    },
    /// The status is to be written again: what it was written to is gone.
    TellAgain,
    /// A status write ended.
    Written(Result<(), String>),
    /// The pod's object was removed from the API, or was gone already.
    Removed(Result<(), String>),
}

/// What others hold of a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    /// The newest object.
    pub pod: watch::Sender<Arc<Pod>>,
    /// What the worker makes of it.
    pub view: watch::Receiver<PodView>,
    /// To tell it something.
    pub messages: mpsc::Sender<Message>,
}

/// Starts a worker for a pod that is new (`record` is `None`) or was kept on disk.
pub fn spawn(context: &Arc<Context>, places: &Arc<Places>, pod: &Arc<Pod>, record: Option<PodRecord>) -> WorkerHandle {
    start(context, pod, |seat| Worker::new(Arc::clone(context), Arc::clone(places), pod, record, seat))
}

/// Starts a worker for a pod that rested.
pub fn resume(context: &Arc<Context>, places: &Arc<Places>, woken: Woken) -> WorkerHandle {
    let pod = Arc::clone(&woken.pod);
    start(context, &pod, |seat| Worker::resumed(Arc::clone(context), Arc::clone(places), woken, seat))
}

/// What a worker has of its channels.
struct Seat {
    messages: mpsc::Sender<Message>,
    view: watch::Sender<PodView>,
}

fn start(context: &Context, pod: &Arc<Pod>, worker: impl FnOnce(Seat) -> Worker) -> WorkerHandle {
    let (pod_sender, pods) = watch::channel(Arc::clone(pod));
    let (messages, inbox) = mpsc::channel(HAPPENING_QUEUE);
    let (view, views) = watch::channel(PodView::new(pod));
    let handle = WorkerHandle { pod: pod_sender, view: views, messages: messages.clone() };
    // Boxed, since a task's future holds what it is made of more than once.
    let worker = Box::new(worker(Seat { messages, view }));
    context.tasks.spawn("pod worker", worker.work(pods, inbox));
    handle
}

struct Worker {
    context: Arc<Context>,
    /// Where the pod is put to rest.
    places: Arc<Places>,
    /// The object with our own status: the one that the API's watch gave, once that says what we do.
    pod: Arc<Pod>,
    observed: Observed,
    messages: mpsc::Sender<Message>,
    runs: BTreeMap<String, Box<Run>>,
    telling: Telling,
    is_removing: bool,
    /// The hash of what was kept on disk last: it only has to tell one state of the pod from the next.
    kept: Option<u64>,
    view: watch::Sender<PodView>,
    /// Whether its start was counted, or was another process'.
    is_counted: bool,
}

impl Worker {
    fn new(
        context: Arc<Context>,
        places: Arc<Places>,
        pod: &Arc<Pod>,
        record: Option<PodRecord>,
        seat: Seat,
    ) -> Worker {
        let now = Timestamp::now();
        let is_known = record.is_some();
        let mut observed = match record {
            Some(record) => record.observed.after_restart(now),
            None => observe_new(&context, pod, now),
        };
        observed.meet(pod);
        if let Some(address) = observed.address.filter(|_| observed.refusal.is_none()) {
            context.network.local().add(address);
            if is_known && !has_ended(pod, &observed) {
                // It had its ports before any other could have them.
                let _ = context.host_ports.claim(pod, address);
            }
        }
        if let Some(refusal) = observed.refusal.as_ref().filter(|_| !is_known) {
            context.events.warning(pod, None, &refusal.reason, &refusal.message);
        }
        Worker { is_counted: is_known, ..Worker::with(context, places, Arc::clone(pod), observed, seat) }
    }

    /// The worker of a pod that rested.
    fn resumed(context: Arc<Context>, places: Arc<Places>, woken: Woken, seat: Seat) -> Worker {
        let Woken { pod, observed, runs } = woken;
        let kept = Some(hash_of(&observed));
        let telling = Telling::up_to_date(Instant::now());
        Worker { runs, telling, kept, is_counted: true, ..Worker::with(context, places, pod, observed, seat) }
    }

    fn with(context: Arc<Context>, places: Arc<Places>, pod: Arc<Pod>, observed: Observed, seat: Seat) -> Worker {
        Worker {
            context,
            places,
            pod,
            observed,
            messages: seat.messages,
            runs: BTreeMap::new(),
            telling: Telling::new(Instant::now()),
            is_removing: false,
            kept: None,
            view: seat.view,
            is_counted: false,
        }
    }

    async fn work(mut self: Box<Self>, mut pods: watch::Receiver<Arc<Pod>>, mut inbox: mpsc::Receiver<Message>) {
        loop {
            let now = Timestamp::now();
            self.decide(now);
            self.report(now);
            self.show();
            self.keep();
            let is_settled = self.is_settled(now);
            let wake = if is_settled { Instant::now() + REST_AFTER } else { self.wake_at(now) };
            tokio::select! {
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    if self.take(message) {
                        return;
                    }
                    while let Ok(message) = inbox.try_recv() {
                        if self.take(message) {
                            return;
                        }
                    }
                }
                changed = pods.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let newest = Arc::clone(&pods.borrow_and_update());
                    self.take_pod(&newest);
                }
                () = tokio::time::sleep_until(wake) => {
                    if is_settled && self.rest(&pods, &inbox) {
                        return;
                    }
                    self.telling.pass(Instant::now());
                }
            }
        }
    }

    /// Decides and begins until there is nothing more to do.
    fn decide(&mut self, now: Timestamp) {
        loop {
            let actions = pod_actions(&self.pod, &self.observed, now);
            let mut is_more = false;
            for action in actions {
                if action == PodAction::Finish {
                    self.finish(now);
                    continue;
                }
                tracing::debug!(pod = spec::name(&self.pod), ?action, "acting");
                self.observed.begin(&action, now);
                self.carry_out(action);
                is_more = true;
            }
            if !is_more {
                return;
            }
        }
    }

    fn carry_out(&mut self, action: PodAction) {
        match action {
            PodAction::Mount => {
                self.spawn(mount::mount(Arc::clone(&self.context), self.pod.clone(), self.observed.address))
            }
            PodAction::Renew => self.spawn_refresh(),
            PodAction::Pull { container } => {
                self.spawn(container::pull(Arc::clone(&self.context), self.pod.clone(), container));
            }
            PodAction::Start { container } => {
                let restarts = self.observed.containers.get(&container).map_or(0, |c| c.restarts);
                self.spawn_start(container, restarts);
            }
            PodAction::Stop { container, grace, because } => self.stop(&container, grace, &because),
            PodAction::Kill { container } => {
                if let Some(run) = self.runs.get(&container) {
                    run.kill();
                }
            }
            PodAction::Doom(refusal) => {
                self.context.events.warning(&self.pod, None, &refusal.reason, &refusal.message);
                self.leave_network();
            }
            PodAction::Finish => {}
        }
    }

    fn spawn(&self, work: impl Future<Output = Happening> + Send + 'static) {
        let messages = self.messages.clone();
        spawn_connection("pod action", async move {
            let happening = work.await;
            let _ = messages.send(Message::Happened(Box::new(happening))).await;
        });
    }

    fn spawn_start(&self, container: String, restarts: u32) {
        let (context, pod, address, messages) =
            (Arc::clone(&self.context), self.pod.clone(), self.observed.address, self.messages.clone());
        spawn_connection("container start", async move {
            if !container::is_verified(&context, &pod, &container).await {
                let _ = messages.send(Message::Happened(Box::new(Happening::Unverified { container }))).await;
                return;
            }
            let message = match container::start(&context, &pod, &container, restarts, address, messages.clone()).await
            {
                Ok(run) => {
                    context.metrics.container_started(true);
                    Message::Launched { container, run: Box::new(run) }
                }
                Err(message) => {
                    context.metrics.container_started(false);
                    context.events.warning(&pod, Some(&container), "Failed", &format!("Error: {message}"));
                    Message::Happened(Box::new(Happening::Misconfigured { container, message }))
                }
            };
            let _ = messages.send(message).await;
        });
    }

    fn stop(&mut self, container: &str, grace: Duration, because: &str) {
        let Some(run) = self.runs.get(container) else { return };
        self.context.events.normal(&self.pod, Some(container), "Killing", because);
        run.stop_probes.cancel();
        if spec::is_deleted(&self.pod) || self.observed.is_gone {
            self.leave_network();
        }
        let is_unhealthy = matches!(self.observed.containers.get(container).map(|c| &c.state), Some(State::Running(r)) if r.unhealthy.is_some());
        let hook = Hook::pre_stop(&self.context, &self.pod, container, self.observed.address);
        let (events, pod, name) = (self.context.events.clone(), self.pod.clone(), container.to_owned());
        let before = async move {
            if let Some(hook) = hook
                && let Err(message) = hook.run_within(grace).await
            {
                events.warning(&pod, Some(&name), "FailedPreStopHook", &format!("PreStopHook failed: {message}"));
            }
        };
        run.stop(before, is_unhealthy, &self.messages);
    }

    /// New requests of this node prefer other pods from now on.
    fn leave_network(&self) {
        if let Some(address) = self.observed.address {
            self.context.network.local().mark_stopping(address);
        }
    }

    /// Takes a message; true when the pod is over.
    fn take(&mut self, message: Message) -> bool {
        let now = Timestamp::now();
        match message {
            Message::Happened(happening) => self.note(*happening, now),
            Message::Launched { container, run } => self.launched(&container, run, now),
            Message::TellAgain => self.telling.lost(),
            Message::Written(result) => self.written(result),
            Message::Removed(Ok(())) => {
                self.forget();
                return true;
            }
            Message::Removed(Err(error)) => {
                tracing::debug!(pod = spec::name(&self.pod), error, "removing a pod's object failed");
                self.is_removing = false;
                self.telling.failed(Instant::now());
            }
        }
        false
    }

    fn note(&mut self, happening: Happening, now: Timestamp) {
        match &happening {
            Happening::Ended { container, id, .. } if self.runs.get(container).is_some_and(|run| &run.id == id) => {
                if let Some(run) = self.runs.remove(container) {
                    run.close(&self.context);
                }
            }
            Happening::PostStarted { container, id, result: Ok(()) } => {
                if let Some(run) = self.runs.get(container).filter(|run| &run.id == id) {
                    probing::start(&self.context, &self.pod, container, run, &self.messages);
                }
            }
            Happening::SourcesChanged if matches!(self.observed.volumes, Volumes::Mounted) => {
                self.spawn_refresh();
            }
            Happening::Gone | Happening::Doomed(_) => self.leave_network(),
            _ => {}
        }
        let before = self.observed.clone();
        let told = happening.clone();
        self.observed.note(&self.pod, happening, now);
        reporting::events(&self.context.events, &self.pod, &before, &self.observed, &told);
    }

    /// Writes changed ConfigMaps and Secrets, and new tokens, into the volumes that are mounted.
    fn spawn_refresh(&self) {
        let has_tokens = !tokens::wanted(&self.pod).is_empty();
        let work = mount::mount(Arc::clone(&self.context), self.pod.clone(), self.observed.address);
        self.spawn(async move {
            match work.await {
                Happening::MountFailed(message) => {
                    tracing::debug!(message, "a volume keeps its contents");
                    let retry = SignedDuration::try_from(TOKEN_RETRY).unwrap_or_default();
                    Happening::Mounted { renew_at: has_tokens.then(|| after(Timestamp::now(), retry)) }
                }
                happening => happening,
            }
        });
    }

    fn launched(&mut self, container: &str, run: Box<Run>, now: Timestamp) {
        self.note(Happening::Started { container: container.to_owned(), id: run.id.clone() }, now);
        self.count_start(now);
        match Hook::post_start(&self.context, &self.pod, container, run.pod_address) {
            Some(hook) => {
                let tell = hook.tell(run.id.clone(), run.stop_probes.clone(), self.messages.clone());
                spawn_connection("post start hook", tell);
            }
            None => probing::start(&self.context, &self.pod, container, &run, &self.messages),
        }
        self.runs.insert(container.to_owned(), run);
    }

    /// Counts the pod once, as soon as every container of it has been started.
    fn count_start(&mut self, now: Timestamp) {
        let runs = |c: &k8s_openapi::api::core::v1::Container| {
            self.observed.containers.get(&c.name).is_some_and(|seen| matches!(seen.state, State::Running(_)))
        };
        if self.is_counted || !spec::containers(&self.pod).iter().all(runs) {
            return;
        }
        self.is_counted = true;
        if let Some(took) = self.observed.started_at.and_then(|at| Duration::try_from(now.duration_since(at)).ok()) {
            self.context.metrics.pod_started(took);
        }
    }

    fn take_pod(&mut self, newest: &Arc<Pod>) {
        for (name, seen) in &mut self.observed.containers {
            if image_of(&self.pod, name) == image_of(newest, name) {
                continue;
            }
            seen.image = Image::Unknown;
            if let State::Running(running) = &mut seen.state {
                running.unhealthy = Some(format!("Container {name} definition changed, will be restarted"));
            }
        }
        self.observed.meet(newest);
        let Some(own) = &self.pod.status else {
            self.pod = Arc::clone(newest);
            return;
        };
        if newest.status.as_ref().is_some_and(|status| reporting::says(status, own)) {
            self.pod = Arc::clone(newest);
            self.telling.confirmed();
            return;
        }
        // What we said last may be newer than what the watch tells.
        let status = reporting::beside_others(own.clone(), newest.status.as_ref());
        self.pod = Arc::new(Pod { status: Some(status), ..Pod::clone(newest) });
    }

    /// Writes the status if it changed and no write is under way.
    fn report(&mut self, now: Timestamp) {
        // Before others hear that the pod is over and its ports are free.
        if self.observed.is_quiet() && has_ended(&self.pod, &self.observed) {
            self.context.host_ports.release(spec::uid(&self.pod));
        }
        let status = pod_status(&self.pod, &self.observed, &self.context.host_address(), now);
        let is_known = self.telling.knows(self.pod.status.as_ref(), &status);
        if !self.pod.status.as_ref().is_some_and(|said| reporting::says(said, &status)) {
            self.telling.object_changed();
            // Whoever was shown the pod keeps the one that it saw.
            let pod = Arc::make_mut(&mut self.pod);
            pod.status = Some(reporting::beside_others(status.clone(), pod.status.as_ref()));
        }
        if is_known || self.is_removing || self.observed.is_gone {
            self.telling.nothing_new();
            return;
        }
        let Some(status) = self.telling.next(status, Instant::now()) else { return };
        let (context, pod, messages) = (Arc::clone(&self.context), self.pod.clone(), self.messages.clone());
        spawn_connection("pod status", async move {
            let result = reporting::write_status(&context, &pod, &status).await;
            let _ = messages.send(Message::Written(result)).await;
        });
    }

    /// Shows the pod to the rest of the agent.
    fn show(&self) {
        let is_quiet = self.observed.is_quiet();
        let is_reported = self.observed.is_gone || self.telling.has(self.pod.status.as_ref());
        self.view.send_if_modified(|view| {
            let is_same = Arc::ptr_eq(&view.pod, &self.pod)
                || (view.pod.metadata.resource_version == self.pod.metadata.resource_version
                    && view.pod.status == self.pod.status);
            if is_same && (view.is_quiet, view.is_reported) == (is_quiet, is_reported) {
                return false;
            }
            if !is_same {
                view.pod = Arc::clone(&self.pod);
            }
            (view.is_quiet, view.is_reported) = (is_quiet, is_reported);
            true
        });
    }

    fn written(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.telling.written(self.pod.status.as_ref()),
            Err(error) => {
                tracing::debug!(pod = spec::name(&self.pod), error, "writing a pod's status failed");
                self.telling.not_written(Instant::now());
            }
        }
    }

    /// Nothing runs: the last status, then the object goes.
    fn finish(&mut self, now: Timestamp) {
        if self.is_removing || self.telling.is_busy() {
            return;
        }
        self.is_removing = true;
        self.context.host_ports.release(spec::uid(&self.pod));
        let status = pod_status(&self.pod, &self.observed, &self.context.host_address(), now);
        let (context, pod, messages) = (Arc::clone(&self.context), self.pod.clone(), self.messages.clone());
        let is_gone = self.observed.is_gone;
        spawn_connection("pod removal", async move {
            let result = if is_gone { Ok(()) } else { reporting::remove(&context, &pod, &status).await };
            let _ = messages.send(Message::Removed(result)).await;
        });
    }

    /// Keeps the pod on disk, beside the work.
    fn keep(&mut self) {
        // A static pod is kept by its manifest.
        let hash = hash_of(&self.observed);
        if self.is_removing || spec::is_static(&self.pod) || self.kept == Some(hash) {
            return;
        }
        self.kept = Some(hash);
        self.context.keep_pod(&self.pod, &self.observed);
    }

    fn forget(&mut self) {
        if let Some(address) = self.observed.address {
            self.context.network.local().remove(address);
        }
        self.context.forget_pod(&self.pod);
    }

    /// Whether there is nothing to do before somebody says something.
    fn is_settled(&self, now: Timestamp) -> bool {
        self.telling.is_over()
            && !self.is_removing
            && self.runs.values().all(|run| run.is_function())
            && may_rest(&self.pod, &self.observed)
            && next_wake(&self.pod, &self.observed, now).is_none()
    }

    /// Puts the pod to rest, unless somebody is about to say something to this worker; true if the worker is over.
    fn rest(&mut self, pods: &watch::Receiver<Arc<Pod>>, inbox: &mpsc::Receiver<Message>) -> bool {
        let places = Arc::clone(&self.places);
        let mut places = places.lock();
        // One sender is the worker's own, one its handle's.
        let is_alone = self.messages.strong_count() == 2 && inbox.is_empty() && !pods.has_changed().unwrap_or(true);
        let Some(place) = places.get_mut(spec::uid(&self.pod)) else { return false };
        let is_its_own = place.worker().is_some_and(|worker| worker.messages.same_channel(&self.messages));
        if !is_alone || !is_its_own {
            return false;
        }
        let Some(resting) = Resting::new(&self.pod, &self.observed, &mut self.runs) else { return false };
        *place = Place::Resting(resting);
        true
    }

    fn wake_at(&self, now: Timestamp) -> Instant {
        let far = Instant::now() + Duration::from_secs(3_600);
        let decided = next_wake(&self.pod, &self.observed, now).map_or(far, |at| {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            Instant::now() + wait.min(Duration::from_secs(3_600))
        });
        self.telling.wake_at().map_or(decided, |at| at.min(decided))
    }
}

fn hash_of(observed: &Observed) -> u64 {
    let mut hasher = DefaultHasher::new();
    observed.hash(&mut hasher);
    hasher.finish()
}

fn image_of(pod: &Pod, container: &str) -> Option<String> {
    spec::container(pod, container)?.image.clone()
}

fn observe_new(context: &Context, pod: &Pod, now: Timestamp) -> Observed {
    let state = context.node_state.borrow().clone();
    let shutdown = || state.is_shutting_down.then(shutdown::refusal);
    let leave = support::Leave {
        host_paths: &context.config.allow_host_path,
        host_network: context.config.allow_host_network,
        memory_volumes: context.memory_volumes.are_here(),
    };
    let refusal = support::refusal(pod, leave).or_else(shutdown).or_else(|| pressure::refusal(pod, &state.pressures));
    match context.take_address(pod) {
        Some(address) => {
            let refusal = refusal.or_else(|| context.host_ports.claim(pod, address).err());
            Observed::new(pod, address, refusal, now)
        }
        None => {
            let message = "the node has no free pod address".to_owned();
            let full = crate::pod::observed::Refusal { reason: "OutOfpods".to_owned(), message };
            Observed::new(pod, std::net::IpAddr::from([0, 0, 0, 0]), Some(full), now)
        }
    }
}
