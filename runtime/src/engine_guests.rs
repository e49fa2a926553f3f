//! The engine and the image files behind [`Guests`].

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use shoal_client::empty_body;
use shoal_engine::{
    Engine, EngineConfig, ExitReason, Kind, LogSink, Module, Outbound, OutboundError, Preopen, Sockets, StartError,
};
use shoal_images::{ClusterRegistry, Digest, ImageStore, PullError};
use shoal_network::{Body, BoxError};

use crate::config::AgentConfig;
use crate::guests::{
    Exit, Grants, GuestFunction, GuestProcess, GuestStats, Guests, ImageRequest, OutputSink, PrepareError, Prepared,
    Program, Started, StoredModule, Usage,
};
use crate::logs::Stream;
use crate::outbound::{OutboundError as Refusal, PodOutbound};
use crate::pod::function_settings::REUSE_CONCURRENCY;
use crate::pod_sockets::PodSockets;
use crate::uplink::Uplink;

/// The commands for every container, built from `wasm-examples/toolbox`.
const TOOLBOX: &[u8] = include_bytes!("../../wasm-examples/toolbox/toolbox.wasm");

/// How long a pull waits for a server to be connected; what is here already is used then.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(2);

/// The worker's engine and its images.
pub struct EngineGuests {
    engine: Arc<Engine>,
    images: Arc<ImageStore>,
    toolbox: tokio::sync::OnceCell<Arc<Module>>,
}

impl EngineGuests {
    /// Opens both below the data directory.
    ///
    /// # Errors
    /// With its context: the machine gives no address space, threads or folder.
    pub fn open(config: &AgentConfig, uplink: Uplink) -> anyhow::Result<EngineGuests> {
        let cache_dir = Some(config.data_dir.join("compiled"));
        let engine =
            Engine::new(&EngineConfig { cache_dir, ..EngineConfig::default() }).context("starting the engine")?;
        let images = ImageStore::open(&config.data_dir.join("images"), Arc::new(Registry(uplink)))
            .context("opening the image files")?;
        Ok(EngineGuests { engine, images: Arc::new(images), toolbox: tokio::sync::OnceCell::new() })
    }

    async fn prepare_image(&self, image: ImageRequest) -> Result<Prepared, PrepareError> {
        let found = self.images.image(&image.reference, image.policy, &image.keyring).await;
        let failed = |error: PullError| PrepareError { reason: error.reason(), message: error.to_string() };
        let found = found.map_err(failed)?;
        let signer = match &image.signers {
            Some(keys) => Some(self.images.verify(&found, keys, &image.keyring).await.map_err(failed)?),
            None => None,
        };
        let path = found.path.clone();
        let module = self.engine.load(&found.module.to_string(), move || std::fs::read(&path)).await;
        let module = module.map_err(|error| PrepareError {
            reason: "ErrImagePull",
            message: format!("{}: {error}", image.reference),
        })?;
        let image_id = found.image_id();
        let (was_fetched, size_bytes) = (found.was_fetched, found.size_bytes);
        let digest = found.module.to_string();
        let program = Loaded { module, entrypoint: found.entrypoint, environment: found.environment };
        Ok(Prepared { image_id, module: digest, was_fetched, size_bytes, signer, program: Arc::new(program) })
    }
}

impl Guests for EngineGuests {
    fn prepare(&self, image: ImageRequest) -> BoxFuture<'_, Result<Prepared, PrepareError>> {
        Box::pin(self.prepare_image(image))
    }

    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredModule>, String>> {
        Box::pin(async move {
            let stored = self.images.list().await.map_err(|error| error.to_string())?;
            let told = |one: shoal_images::Stored| StoredModule {
                module: one.module.to_string(),
                size_bytes: one.size_bytes,
                // A time that no timestamp can say is long ago.
                since: one.since.try_into().unwrap_or(jiff::Timestamp::UNIX_EPOCH),
                references: one.references,
                image_ids: one.image_ids,
            };
            Ok(stored.into_iter().map(told).collect())
        })
    }

    fn remove<'a>(&'a self, module: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let digest = Digest::parse(module).map_err(|error| error.to_string())?;
            self.images.remove(&digest).await.map_err(|error| error.to_string())?;
            let (engine, module) = (Arc::clone(&self.engine), module.to_owned());
            let forgotten = tokio::task::spawn_blocking(move || engine.forget(&module)).await;
            forgotten.map_err(std::io::Error::other).flatten().map_err(|error| error.to_string())
        })
    }

    fn toolbox(&self) -> BoxFuture<'_, Result<Arc<dyn Program>, String>> {
        Box::pin(async move {
            let module = self.toolbox.get_or_try_init(|| self.engine.load("toolbox", || Ok(TOOLBOX.to_vec()))).await;
            let module = module.map_err(|error| format!("the toolbox: {error}"))?;
            let program = Loaded { module: Arc::clone(module), entrypoint: Vec::new(), environment: Vec::new() };
            Ok(Arc::new(program) as Arc<dyn Program>)
        })
    }

    fn stats(&self) -> GuestStats {
        self.engine.stats()
    }

    fn threads(&self) -> tokio::runtime::Handle {
        self.engine.guests().clone()
    }
}

/// The way to the cluster's registry: over the link.
struct Registry(Uplink);

impl ClusterRegistry for Registry {
    fn get(&self, path: &str, accept: &str, from: u64) -> BoxFuture<'_, Result<Response<Body>, BoxError>> {
        let mut request = Request::get(path).header(http::header::ACCEPT, accept);
        if from > 0 {
            request = request.header(http::header::RANGE, format!("bytes={from}-"));
        }
        let request = request.body(empty_body());
        Box::pin(async move { Ok(self.0.request_within(request?, REGISTRY_PATIENCE).await?) })
    }
}

struct Loaded {
    module: Arc<Module>,
    entrypoint: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Program for Loaded {
    fn start(&self, grants: Grants) -> Result<Started, String> {
        let kind = self.module.kind();
        let grants = engine_grants(grants);
        match kind {
            Kind::Function => {
                let function = self.module.function(grants).map_err(|error| match error {
                    StartError::OneAtATime => format!("metadata.annotations[{REUSE_CONCURRENCY}]: must be 1: {error}"),
                    error => error.to_string(),
                })?;
                Ok(Started::Function(Arc::new(Function(function))))
            }
            Kind::Process => {
                let process = self.module.start(&grants).map_err(|error| error.to_string())?;
                Ok(Started::Process(Box::new(Process(process))))
            }
        }
    }

    fn runs_commands(&self) -> bool {
        self.module.kind() == Kind::Process
    }

    fn entrypoint(&self) -> Vec<String> {
        self.entrypoint.clone()
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }
}

fn engine_grants(grants: Grants) -> shoal_engine::Grants {
    let preopen =
        |mount: crate::mount::Mount| Preopen { host: mount.host, guest: mount.guest, read_only: mount.is_read_only };
    shoal_engine::Grants {
        arguments: grants.arguments,
        environment: grants.environment,
        preopens: grants.mounts.into_iter().map(preopen).collect(),
        working_directory: grants.working_directory,
        stdin: grants.stdin,
        is_terminal: grants.is_terminal,
        stdout: Arc::new(Sink(Arc::clone(&grants.output), Stream::Stdout)),
        stderr: Arc::new(Sink(grants.output, Stream::Stderr)),
        memory_limit_bytes: grants.memory_limit_bytes,
        cpu_limit_millis: grants.cpu_limit_millis,
        cpu_request_millis: grants.cpu_request_millis,
        group: grants.group,
        sockets: grants
            .address
            .map(|address| PodSockets::new(Arc::clone(&grants.outbound), address, grants.host_network.clone()))
            .map(|sockets| Arc::new(sockets) as Arc<dyn Sockets>),
        outbound: Arc::new(Route(grants.outbound)),
        request_timeout: grants.function.request_timeout,
        concurrency: grants.function.concurrency,
        reuse: grants.function.reuse,
    }
}

struct Sink(Arc<dyn OutputSink>, Stream);

impl LogSink for Sink {
    fn write(&self, bytes: &[u8]) {
        self.0.write(self.1, bytes);
    }

    fn room(&self) -> usize {
        self.0.room()
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_room(context)
    }
}

struct Route(Arc<PodOutbound>);

impl Outbound for Route {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, OutboundError>> {
        let outbound = Arc::clone(&self.0);
        Box::pin(async move {
            outbound.route(request).await.map_err(|error| match error {
                Refusal::Denied(_) => OutboundError::Denied,
                Refusal::NameNotFound(_) => OutboundError::NotFound,
                Refusal::Refused(_) => OutboundError::Refused,
                Refusal::Invalid(_) | Refusal::Broken(_) => OutboundError::Other(error.to_string()),
            })
        })
    }
}

struct Function(shoal_engine::Function);

impl GuestFunction for Function {
    fn call(&self, request: Request<Body>) -> BoxFuture<'_, Response<Body>> {
        Box::pin(self.0.call(request))
    }

    fn failure(&self) -> BoxFuture<'_, String> {
        Box::pin(self.0.failure())
    }

    fn kill(&self) {
        self.0.kill();
    }

    fn usage(&self) -> Arc<dyn Usage> {
        Arc::new(EngineUsage(self.0.usage()))
    }
}

struct EngineUsage(shoal_engine::Usage);

impl Usage for EngineUsage {
    fn cpu_time(&self) -> Duration {
        self.0.cpu_time()
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}

struct Process(shoal_engine::Process);

impl GuestProcess for Process {
    fn wait(&mut self) -> BoxFuture<'_, Exit> {
        Box::pin(async move {
            let exit = self.0.wait().await;
            let (reason, message) = match exit.reason {
                ExitReason::Exited if exit.code == 0 => ("Completed", None),
                ExitReason::Exited | ExitReason::Killed => ("Error", None),
                ExitReason::OutOfMemory => ("OOMKilled", None),
                ExitReason::Trap(text) => ("Error", Some(text)),
            };
            Exit { code: exit.code, reason, message }
        })
    }

    fn ask_stop(&mut self) -> BoxFuture<'static, ()> {
        self.0.ask_stop()
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn usage(&self) -> Arc<dyn Usage> {
        Arc::new(EngineUsage(self.0.usage()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::BodyExt;

    use super::*;
    use crate::logs::{ContainerLog, LogDirectory};
    use crate::outbound::Outside;
    use crate::outbound_policy::AllowedHosts;
    use crate::pod::function_settings::FunctionSettings;

    #[tokio::test]
    async fn the_bundled_function_answers_through_the_seam() {
        let wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-examples/hello/hello.wasm");
        let directory = tempfile::tempdir().expect("directory");
        let engine = Engine::new(&EngineConfig::default()).expect("an engine");
        let module = engine.load("hello", move || std::fs::read(&wasm)).await.expect("a module");
        let log = ContainerLog::open(&LogDirectory::new(directory.path(), "uid", "c"), 0).expect("a log");
        let started = Loaded { module, entrypoint: Vec::new(), environment: Vec::new() }.start(Grants {
            arguments: vec!["hello".to_owned()],
            environment: Vec::new(),
            mounts: Vec::new(),
            working_directory: None,
            stdin: shoal_engine::Stdin::empty(),
            output: log,
            is_terminal: false,
            memory_limit_bytes: Some(64 << 20),
            cpu_limit_millis: None,
            cpu_request_millis: 0,
            group: None,
            outbound: Arc::new(PodOutbound {
                namespace: "default".to_owned(),
                address: None,
                allowed: AllowedHosts::default(),
                network: crate::test_network::network(),
                outside: Outside::default(),
                names: shoal_network::PodNames::default(),
                world: crate::world_names::WorldNames::default(),
            }),
            function: FunctionSettings::default(),
            address: None,
            host_network: None,
        });
        let Ok(Started::Function(function)) = started else { panic!("hello is a function") };
        let request = Request::get("/").header("host", "hello").body(empty_body()).expect("a request");
        let response = function.call(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(status.is_success() && !body.is_empty(), "{status} {body:?}");
    }
}
