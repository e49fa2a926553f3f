//! What the agent asks of whatever runs its containers: the seam between pods and the engine.
//!
//! The engine behind it is in `engine_guests`; tests put in a double. Everything here is of the agent's own words, so that the
//! engine knows no Kubernetes and the pods' code no engine.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use jiff::Timestamp;
pub use shoal_engine::{Durations, Stats as GuestStats};
use shoal_engine::{Group, Stdin};
pub use shoal_images::{Keyring, PublicKey, PullPolicy};
use shoal_network::Body;

use crate::host_ports::HostNetwork;
use crate::logs::Stream;
use crate::mount::Mount;
use crate::outbound::PodOutbound;
use crate::pod::function_settings::FunctionSettings;

/// Fetches images and prepares programs.
pub trait Guests: Send + Sync + 'static {
    /// Fetches the image as the policy says, verifies it and its signature, and compiles it.
    fn prepare(&self, image: ImageRequest) -> BoxFuture<'_, Result<Prepared, PrepareError>>;

    /// The modules that are on this machine, in no order.
    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredModule>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Removes a module from this machine, with the images and the compiled code that it is of. What runs goes on.
    fn remove<'a>(&'a self, _module: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// The program with the commands that people expect in every container.
    fn toolbox(&self) -> BoxFuture<'_, Result<Arc<dyn Program>, String>>;

    /// What was counted of them.
    fn stats(&self) -> GuestStats {
        GuestStats::default()
    }

    /// The threads on which they run, for connections whose requests they answer.
    fn threads(&self) -> tokio::runtime::Handle;
}

/// Which image, and how fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// As the pod writes it.
    pub reference: String,
    /// When to look for it again.
    pub policy: PullPolicy,
    /// What may be shown to its registry.
    pub keyring: Keyring,
    /// The keys of which one must have signed it; none if it needs no signature.
    pub signers: Option<Vec<PublicKey>>,
}

/// A module on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModule {
    /// Its digest.
    pub module: String,
    /// The bytes of its file.
    pub size_bytes: u64,
    /// When it came.
    pub since: Timestamp,
    /// The references that lead to it, in their canonical form.
    pub references: Vec<String>,
    /// The images that it is of, each as name and digest.
    pub image_ids: Vec<String>,
}

/// A program that can be started.
#[derive(Clone)]
pub struct Prepared {
    /// The reference with the digest, for the status.
    pub image_id: String,
    /// The digest of the module.
    pub module: String,
    /// Whether it had to be fetched.
    pub was_fetched: bool,
    /// Bytes of the module.
    pub size_bytes: u64,
    /// The fingerprint of the key that has signed it, if that was asked.
    pub signer: Option<String>,
    /// What starts it.
    pub program: Arc<dyn Program>,
}

/// Why an image could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareError {
    /// `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`, `SignatureValidationFailed`.
    pub reason: &'static str,
    /// The cause, for people.
    pub message: String,
}

/// A compiled module.
pub trait Program: Send + Sync + 'static {
    /// Starts it.
    ///
    /// # Errors
    /// A sentence.
    fn start(&self, grants: Grants) -> Result<Started, String>;
    /// Whether it is a process, so that it can be started beside itself with other arguments.
    fn runs_commands(&self) -> bool;
    /// The first argument, where the container names no command.
    fn entrypoint(&self) -> Vec<String>;
    /// The image's own variables.
    fn environment(&self) -> Vec<(String, String)>;
}

/// Takes what a guest prints, on the guest's threads. One that must lose nothing says how much room it has; the guest waits for more.
pub trait OutputSink: Send + Sync + 'static {
    /// Some bytes, never more than there was room for.
    fn write(&self, stream: Stream, bytes: &[u8]);
    /// How many bytes it can take now.
    fn room(&self) -> usize {
        usize::MAX
    }
    /// Ready when there is room; else the task is woken when there may be.
    fn poll_room(&self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Everything that a container may use.
pub struct Grants {
    /// The program's arguments, its own name first.
    pub arguments: Vec<String>,
    /// Its variables.
    pub environment: Vec<(String, String)>,
    /// Its directories.
    pub mounts: Vec<Mount>,
    /// Where it starts, if that is said.
    pub working_directory: Option<String>,
    /// What it reads.
    pub stdin: Stdin,
    /// Where its output goes.
    pub output: Arc<dyn OutputSink>,
    /// Whether both are a terminal's.
    pub is_terminal: bool,
    /// Bytes of memory; none means no limit of the pod's own.
    pub memory_limit_bytes: Option<u64>,
    /// Thousandths of a core; none means no limit.
    pub cpu_limit_millis: Option<u32>,
    /// Thousandths of a core that it requests.
    pub cpu_request_millis: u32,
    /// What the pod's containers may use together.
    pub group: Option<Arc<Group>>,
    /// Where its requests go.
    pub outbound: Arc<PodOutbound>,
    /// How a function works.
    pub function: FunctionSettings,
    /// The pod's address, at which a process's ports are; none means that it cannot listen.
    pub address: Option<std::net::IpAddr>,
    /// The node's network, if the pod shares it.
    pub host_network: Option<HostNetwork>,
}

/// What runs.
pub enum Started {
    /// An HTTP function.
    Function(Arc<dyn GuestFunction>),
    /// A process.
    Process(Box<dyn GuestProcess>),
}

/// An HTTP function.
pub trait GuestFunction: Send + Sync + 'static {
    /// Answers a request; a failure of the guest is an answer too.
    fn call(&self, request: Request<Body>) -> BoxFuture<'_, Response<Body>>;
    /// Waits until a guest of it has failed, and says how. Cancel safe.
    fn failure(&self) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
    }
    /// Ends every instance at once.
    fn kill(&self);
    /// What its instances use.
    fn usage(&self) -> Arc<dyn Usage>;
}

/// A process.
pub trait GuestProcess: Send + 'static {
    /// Waits for its end. Cancel safe.
    fn wait(&mut self) -> BoxFuture<'_, Exit>;
    /// Asks it to stop. What is answered is ready when there is nothing to wait for before it is killed: never for one that
    /// will end by itself, at once for one that cannot hear of it.
    fn ask_stop(&mut self) -> BoxFuture<'static, ()>;
    /// Ends it at once.
    fn kill(&mut self);
    /// What it uses.
    fn usage(&self) -> Arc<dyn Usage>;
}

/// What something uses, good to be asked at any time.
pub trait Usage: Send + Sync + 'static {
    /// The CPU time up to now.
    fn cpu_time(&self) -> Duration;
    /// Bytes of memory now.
    fn memory_bytes(&self) -> u64;
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its code.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`.
    pub reason: &'static str,
    /// More, such as a trap's.
    pub message: Option<String>,
}
