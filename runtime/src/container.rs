//! Starting a container and holding what runs.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use shoal_api::image_policy::PUBLIC_KEYS;
use shoal_engine::Stdin;
use shoal_link::tasks::spawn_connection;
use shoal_network::{LocalTarget, Protocol};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::events::{Events, pod_reference};
use crate::exec::{Live, LiveLog};
use crate::function_target::FunctionTarget;
use crate::guests::{
    Exit, Grants, GuestFunction, GuestProcess, ImageRequest, OutputSink, PrepareError, Prepared, PullPolicy, Started,
    Usage,
};
use crate::host_ports::{HostNetwork, Opened};
use crate::image_gc::collector;
use crate::last_words::LastWords;
use crate::limits::{EVENT_CHARACTERS, FAILURE_PERIOD};
use crate::logs::ContainerLog;
use crate::outbound::PodOutbound;
use crate::outbound_policy::AllowedHosts;
use crate::pod::environment::{arguments, environment};
use crate::pod::function_settings::FunctionSettings;
use crate::pod::names::pod_names;
use crate::pod::resources::{self, Bound};
use crate::pod::service_env::service_environment;
use crate::pod::{Happening, ephemeral, spec};
use crate::worker::Message;
use crate::world_names::WorldNames;
use crate::{mount, pull_secrets};

/// Why an image is not used that is not signed as it must be: the kubelet's own word.
const UNSIGNED: &str = "SignatureValidationFailed";
/// The exit code of what is asked to stop and does.
const EXIT_ASKED: i32 = 143;
/// The exit code of what is killed.
const EXIT_KILLED: i32 = 137;

/// One run of a container.
pub struct Run {
    /// Of this run.
    pub id: String,
    /// The pod's address.
    pub pod_address: Option<IpAddr>,
    /// Ends the probes.
    pub stop_probes: CancellationToken,
    key: (String, String),
    container: String,
    control: Control,
    log: Arc<ContainerLog>,
    last_words: LastWords,
    live: Arc<Live>,
    usage: Arc<dyn Usage>,
    listens: Vec<SocketAddr>,
    _of_node: Option<Opened>,
}

enum Control {
    Function { target: Arc<FunctionTarget>, killed: CancellationToken },
    Process(mpsc::Sender<Order>),
}

/// What a process' keeper is told.
enum Order {
    Stop,
    Kill,
}

/// Fetches and compiles a container's module.
pub async fn pull(context: Arc<Context>, pod: Arc<Pod>, container: String) -> Happening {
    let failed = |container: String, message: String| Happening::PullFailed {
        container,
        reason: "ErrImagePull".to_owned(),
        message,
    };
    let Some(definition) = spec::container(&pod, &container) else {
        return failed(container, "no such container".to_owned());
    };
    let image = definition.image.clone().unwrap_or_default();
    let policy = match definition.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    };
    let began = std::time::Instant::now();
    let keyring = match pull_secrets::of_pod(&context, &pod).await {
        Ok(keyring) => keyring,
        Err(message) => return failed(container, message),
    };
    let signers = match context.image_policies.signers(&pod, &image).await {
        Ok(signers) => signers,
        Err(message) => return Happening::PullFailed { container, reason: UNSIGNED.to_owned(), message },
    };
    match context.guests.prepare(ImageRequest { reference: image.clone(), policy, keyring, signers }).await {
        Ok(prepared) => {
            tell_pulled(&context, &pod, &container, &image, &prepared, began.elapsed());
            if prepared.was_fetched {
                context.metrics.image_pulled(began.elapsed());
                let context = Arc::clone(&context);
                spawn_connection("image list", async move { collector::tell(&context).await });
            }
            let image_id = prepared.image_id.clone();
            let key = (spec::uid(&pod).to_owned(), container.clone());
            context.modules.lock().unwrap_or_else(PoisonError::into_inner).insert(key, prepared);
            Happening::Pulled { container, image_id }
        }
        Err(PrepareError { reason, message }) => {
            let message = match reason {
                UNSIGNED => format!(
                    "{message}; the namespace {:?} wants a signature by a key of its annotation {PUBLIC_KEYS}",
                    spec::namespace(&pod)
                ),
                _ => message,
            };
            Happening::PullFailed { container, reason: reason.to_owned(), message }
        }
    }
}

/// Whether the module that is here is signed as it must be by now: the policy may have changed since it was pulled.
pub async fn is_verified(context: &Context, pod: &Pod, container: &str) -> bool {
    let image = spec::container(pod, container).and_then(|definition| definition.image.clone()).unwrap_or_default();
    let signers = match context.image_policies.signers(pod, &image).await {
        Ok(Some(signers)) => signers,
        Ok(None) => return true,
        Err(_) => return false,
    };
    let key = (spec::uid(pod).to_owned(), container.to_owned());
    let modules = context.modules.lock().unwrap_or_else(PoisonError::into_inner);
    let signer = modules.get(&key).and_then(|prepared| prepared.signer.as_ref());
    signer.is_some_and(|signer| signers.iter().any(|key| key.fingerprint() == *signer))
}

fn tell_pulled(context: &Context, pod: &Pod, container: &str, image: &str, prepared: &Prepared, took: Duration) {
    let message = if prepared.was_fetched {
        context.events.normal(pod, Some(container), "Pulling", &format!("Pulling image {image:?}"));
        let millis = took.as_millis();
        format!(
            "Successfully pulled image {image:?} in {millis}ms ({millis}ms including waiting). Image size: {} bytes.",
            prepared.size_bytes
        )
    } else {
        format!("Container image {image:?} already present on machine")
    };
    context.events.normal(pod, Some(container), "Pulled", &message);
}

/// Starts a container whose module is here.
///
/// # Errors
/// The message of a `CreateContainerConfigError`.
pub async fn start(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    container: &str,
    restarts: u32,
    address: Option<IpAddr>,
    messages: mpsc::Sender<Message>,
) -> Result<Run, String> {
    let definition = spec::container(pod, container).ok_or("no such container")?;
    let definition = definition.as_ref();
    let key = (spec::uid(pod).to_owned(), container.to_owned());
    let prepared = context
        .modules
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&key)
        .cloned()
        .ok_or("its module is not loaded")?;
    if ephemeral::is_ephemeral(pod, container) {
        if let Some(why) = ephemeral::refusal(definition) {
            return Err(why.to_owned());
        }
        if !prepared.program.runs_commands() {
            return Err("an ephemeral container is a process, and this image is an HTTP function".to_owned());
        }
    }
    let variables = variables(context, pod, definition, address, &prepared).await?;
    let log = ContainerLog::open(&context.log_directory(&key.0, container), restarts)
        .map_err(|error| format!("opening its log: {error}"))?;
    let (writer, stdin) = if definition.stdin == Some(true) {
        let (writer, stdin) = Stdin::pipe();
        (Some(writer), stdin)
    } else {
        (None, Stdin::empty())
    };
    let is_terminal = definition.tty == Some(true);
    let is_stdin_once = definition.stdin_once == Some(true);
    let live = Live::new(prepared.clone(), address, writer, is_stdin_once, is_terminal);
    let streams = Streams { stdin, output: Arc::new(LiveLog::new(Arc::clone(&log), &live)), is_terminal };
    let mut grants = grants(context, pod, definition, address, &variables, streams)?;
    grants.arguments = program_arguments(definition, &variables, &prepared);
    let last_words = LastWords::prepare(
        pod,
        definition,
        &context.volume_root(&key.0),
        prepared.program.runs_commands(),
        &mut grants.mounts,
        (context.log_directory(&key.0, container), restarts),
    )?;
    let of_node = port_of_node(context, pod, definition, &variables, &prepared)?;
    let started = prepared.program.start(grants)?;
    let usage = match &started {
        Started::Function(function) => function.usage(),
        Started::Process(process) => process.usage(),
    };
    context.usages.add(key.clone(), Arc::clone(&usage));
    context.open_logs.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), Arc::clone(&log));
    context.live.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), Arc::clone(&live));
    let id = uuid::Uuid::new_v4().simple().to_string();
    let mut run = Run {
        id: id.clone(),
        pod_address: address,
        stop_probes: context.tasks.stop().child_token(),
        key,
        container: container.to_owned(),
        control: Control::Process(mpsc::channel(1).0),
        log: Arc::clone(&log),
        last_words,
        live,
        usage,
        listens: Vec::new(),
        _of_node: of_node,
    };
    match started {
        Started::Function(function) => {
            let failures = tell_failures(
                Arc::clone(&function),
                context.events.clone(),
                // Not the pod: this one is soon another than the one that all others share.
                Box::new(pod_reference(pod, Some(container))),
                run.stop_probes.clone(),
            );
            spawn_connection("function failures", failures);
            let target = FunctionTarget::new(function);
            if let Some(address) = address {
                let listen = SocketAddr::new(address, spec::listen_port(definition, &variables));
                context.network.local().listen(listen, &LocalTarget::Function(target.clone()));
                run.listens.push(listen);
            }
            run.control = Control::Function { target, killed: CancellationToken::new() };
        }
        Started::Process(process) => {
            let (orders, inbox) = mpsc::channel(4);
            let end = keep_process(process, inbox, run.container.clone(), id, context.tasks.stop().clone());
            let last_words = run.last_words.clone();
            spawn_connection("process", async move {
                if let Some(ended) = end.await {
                    let ended = last_words.complete(log, ended).await;
                    let _ = messages.send(Message::Happened(Box::new(ended))).await;
                }
            });
            run.control = Control::Process(orders);
        }
    }
    Ok(run)
}

/// The node's port of a function, if its pod shares the node's address; a process takes those that it listens at.
fn port_of_node(
    context: &Context,
    pod: &Pod,
    definition: &Container,
    variables: &[(String, String)],
    prepared: &Prepared,
) -> Result<Option<Opened>, String> {
    let is_function = !prepared.program.runs_commands();
    let Some(host) = HostNetwork::of(context, pod).filter(|_| is_function) else { return Ok(None) };
    let port = spec::listen_port(definition, variables);
    let opened = host.open(Protocol::Tcp, port);
    opened.map(Some).ok_or_else(|| format!("another pod has port {port} of the node"))
}

/// What an instance reads and writes.
pub struct Streams {
    /// Its input.
    pub stdin: Stdin,
    /// Where its output goes.
    pub output: Arc<dyn OutputSink>,
    /// Whether they are a terminal's.
    pub is_terminal: bool,
}

/// What an instance in this container may use, without arguments.
///
/// # Errors
/// A sentence: a mount that cannot be.
pub fn grants(
    context: &Context,
    pod: &Pod,
    definition: &Container,
    address: Option<IpAddr>,
    variables: &[(String, String)],
    streams: Streams,
) -> Result<Grants, String> {
    let limit = |resource: &str| resources::of_container(definition, Bound::Limits, resource);
    Ok(Grants {
        arguments: Vec::new(),
        environment: variables.to_vec(),
        mounts: mount::mounts(pod, definition, &context.volume_root(spec::uid(pod)), variables)?,
        working_directory: definition.working_dir.clone().filter(|d| !d.is_empty()),
        stdin: streams.stdin,
        output: streams.output,
        is_terminal: streams.is_terminal,
        memory_limit_bytes: limit("memory").and_then(|quantity| u64::try_from(quantity.bytes()).ok()),
        cpu_limit_millis: limit("cpu").and_then(|quantity| u32::try_from(quantity.millis()).ok()),
        cpu_request_millis: u32::try_from(resources::processor_request(pod, definition).millis()).unwrap_or_default(),
        group: context.groups.of(pod),
        outbound: Arc::new(PodOutbound {
            namespace: spec::namespace(pod).to_owned(),
            address,
            allowed: AllowedHosts::of(pod),
            network: Arc::clone(&context.network),
            outside: context.outside.clone(),
            names: pod_names(pod, context.shown_address(pod, address)),
            world: WorldNames::of(pod),
        }),
        function: FunctionSettings::of(pod).map_err(|(field, why)| format!("{field}: {why}"))?,
        address,
        host_network: HostNetwork::of(context, pod),
    })
}

/// Tells of requests at which the function's guest failed, as events: the last one of each period, since a function may fail
/// a thousand times a second.
async fn tell_failures(
    function: Arc<dyn GuestFunction>,
    events: Events,
    about: Box<ObjectReference>,
    over: CancellationToken,
) {
    let tell = async {
        loop {
            let message = function.failure().await;
            events.warning_about((*about).clone(), "FunctionFailed", &failure_message(&message));
            tokio::time::sleep(FAILURE_PERIOD).await;
        }
    };
    tokio::select! {
        () = tell => {}
        () = over.cancelled() => {}
    }
}

/// The failure with the guest's backtrace, as long as an event may be.
fn failure_message(failure: &str) -> String {
    let mut message = format!("The function failed to answer a request: {failure}");
    if let Some((end, _)) = message.char_indices().nth(EVENT_CHARACTERS) {
        message.truncate(end);
    }
    message
}

/// The variables of a container.
///
/// # Errors
/// A sentence: one that names what is not there.
pub async fn variables(
    context: &Context,
    pod: &Pod,
    container: &Container,
    address: Option<IpAddr>,
    prepared: &Prepared,
) -> Result<Vec<(String, String)>, String> {
    let sources = context.sources.fetch(pod).await?;
    let services = context.services.borrow().clone();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
    let mut first = service_environment(services.iter().map(Arc::as_ref), spec::namespace(pod), links);
    let hostname = if spec::has_host_network(pod) { context.config.node_name.clone() } else { spec::own_name(pod)? };
    first.push(("HOSTNAME".to_owned(), hostname));
    for (name, value) in prepared.program.environment() {
        if !first.iter().any(|(known, _)| *known == name) {
            first.push((name, value));
        }
    }
    environment(pod, container, &sources, first, &context.place(pod, address))
}

/// The arguments; where the container names no command, the image's entrypoint or the container's name is the first.
fn program_arguments(container: &Container, variables: &[(String, String)], prepared: &Prepared) -> Vec<String> {
    let given = arguments(container, variables);
    let has_command = container.command.as_ref().is_some_and(|c| !c.is_empty() && c[..] != ["/"]);
    if has_command {
        return given;
    }
    let skipped = container.command.as_ref().map_or(0, Vec::len);
    let mut first = prepared.program.entrypoint();
    if first.is_empty() {
        first.push(container.name.clone());
    }
    first.into_iter().chain(given.into_iter().skip(skipped)).collect()
}

impl Run {
    /// Which container it is of.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Whether it does nothing but answer requests, and tells its pod's worker nothing by itself.
    pub fn is_function(&self) -> bool {
        matches!(self.control, Control::Function { .. })
    }

    /// Asks it to stop once `before` is done; a function drains, a process hears of it. Returns at once; its end is told later.
    pub fn stop(
        &self,
        before: impl Future<Output = ()> + Send + 'static,
        is_unhealthy: bool,
        messages: &mpsc::Sender<Message>,
    ) {
        match &self.control {
            Control::Function { target, killed } => {
                let (target, killed, messages) = (Arc::clone(target), killed.clone(), messages.clone());
                let ended = |exit_code: i32, reason: &str| Happening::Ended {
                    container: self.container.clone(),
                    id: self.id.clone(),
                    exit_code,
                    reason: reason.to_owned(),
                    message: None,
                };
                // A function that was stopped because it failed has not completed.
                let drained = if is_unhealthy { ended(EXIT_ASKED, "Error") } else { ended(0, "Completed") };
                let dead = ended(EXIT_KILLED, "Error");
                let (last_words, log) = (self.last_words.clone(), Arc::clone(&self.log));
                spawn_connection("function drain", async move {
                    let happening = tokio::select! {
                        () = async { before.await; target.drain().await } => drained,
                        () = killed.cancelled() => dead,
                    };
                    let happening = last_words.complete(log, happening).await;
                    let _ = messages.send(Message::Happened(Box::new(happening))).await;
                });
            }
            Control::Process(orders) => {
                let (orders, live) = (orders.clone(), Arc::clone(&self.live));
                spawn_connection("process stop", async move {
                    before.await;
                    live.end_input();
                    // A process that ended needs no order.
                    let _ = orders.send(Order::Stop).await;
                });
            }
        }
    }

    /// Ends it at once.
    pub fn kill(&self) {
        match &self.control {
            Control::Function { target, killed } => {
                target.kill();
                killed.cancel();
            }
            Control::Process(orders) => {
                let orders = orders.clone();
                spawn_connection("process kill", async move {
                    let _ = orders.send(Order::Kill).await;
                });
            }
        }
    }

    /// The run is over: its ports, probes and log end.
    pub fn close(&self, context: &Context) {
        self.stop_probes.cancel();
        for listen in &self.listens {
            context.network.local().close(*listen);
        }
        if let Control::Function { target, .. } = &self.control {
            target.kill();
        }
        self.log.close();
        context.usages.remove(&self.key, &self.usage);
        let mut open = context.open_logs.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&self.key).is_some_and(|log| Arc::ptr_eq(log, &self.log)) {
            open.remove(&self.key);
        }
        drop(open);
        let mut live = context.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.get(&self.key).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            live.remove(&self.key);
        }
    }
}

/// Waits for a process' end, which it answers, and passes orders on. No answer when the agent stops.
async fn keep_process(
    mut process: Box<dyn GuestProcess>,
    mut orders: mpsc::Receiver<Order>,
    container: String,
    id: String,
    stop: CancellationToken,
) -> Option<Happening> {
    // Set once it was asked to stop: until there is nothing more to wait for.
    let mut leaving: Option<BoxFuture<'static, ()>> = None;
    let mut was_ended = false;
    let exit = loop {
        let left = async {
            match leaving.as_mut() {
                Some(leaving) if !was_ended => leaving.await,
                _ => std::future::pending().await,
            }
        };
        let order = tokio::select! {
            exit = process.wait() => break exit,
            order = orders.recv() => order.unwrap_or(Order::Kill),
            () = left => {
                was_ended = true;
                Order::Kill
            }
            () = stop.cancelled() => Order::Kill,
        };
        match order {
            Order::Stop => leaving = Some(process.ask_stop()),
            Order::Kill => process.kill(),
        }
        if stop.is_cancelled() {
            return None;
        }
    };
    // It ends as a program without a handler for the signal does.
    let was_ended = was_ended && exit.reason == "Error" && exit.code == EXIT_KILLED;
    let exit = if was_ended { Exit { code: EXIT_ASKED, reason: "Error", message: None } } else { exit };
    let reason = exit.reason.to_owned();
    Some(Happening::Ended { container, id, exit_code: exit.code, reason, message: exit.message })
}
