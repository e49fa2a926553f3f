//! What a guest may use. Nothing is granted that is not named here, but clocks and randomness.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;

use crate::group::Group;
use crate::input::Stdin;
use crate::sockets::Sockets;

/// What can go wrong in a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or response.
pub type Body = BoxBody<Bytes, BoxError>;

/// Everything that a guest is given. Cheap to clone.
#[derive(Clone)]
pub struct Grants {
    /// The arguments, the program's own name first.
    pub arguments: Vec<String>,
    /// The variables; of a name that stands twice the last one counts.
    pub environment: Vec<(String, String)>,
    /// The directories it sees.
    pub preopens: Vec<Preopen>,
    /// The directory it starts in.
    pub working_directory: Option<String>,
    /// What it reads as its standard input; the instances of a function read nothing.
    pub stdin: Stdin,
    /// Whether its standard streams are a terminal's.
    pub is_terminal: bool,
    /// Where its standard output goes.
    pub stdout: Arc<dyn LogSink>,
    /// Where its standard error goes.
    pub stderr: Arc<dyn LogSink>,
    /// Bytes of memory and tables for all its instances together; none means no limit.
    pub memory_limit_bytes: Option<u64>,
    /// Thousandths of a core, over periods of 100 ms; none means no limit.
    pub cpu_limit_millis: Option<u32>,
    /// Thousandths of a core that it should have where there is not enough for all: its weight among those that compute.
    pub cpu_request_millis: u32,
    /// What it may use together with others, beside its own limits.
    pub group: Option<Arc<Group>>,
    /// Where its HTTP requests go.
    pub outbound: Arc<dyn Outbound>,
    /// Where its sockets lead; none means that it has none. A function's are for going out only.
    pub sockets: Option<Arc<dyn Sockets>>,
    /// How long a function may work on one request, its body included.
    pub request_timeout: Duration,
    /// How many requests a function works on at once; as many again may wait.
    pub concurrency: usize,
    /// Whether a function's instance may answer more than one request; none is a fresh one for each.
    pub reuse: Option<Reuse>,
}

/// How instances of a function are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// How many wait for requests at most.
    pub instances: usize,
    /// How many requests one answers at most.
    pub requests: u32,
    /// How many of them one works on at once at most; more than one only where the function is of WASI 0.3.
    pub concurrency: usize,
}

impl Grants {
    /// The same with each variable once: WASI's context keeps both of two with one name, and guests differ in which one they take.
    pub(crate) fn with_each_variable_once(self) -> Self {
        let environment: BTreeMap<String, String> = self.environment.into_iter().collect();
        Self { environment: environment.into_iter().collect(), ..self }
    }

    /// No file, no variable, no network, no limit; output goes to `output`.
    pub fn none(output: Arc<dyn LogSink>) -> Self {
        Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            preopens: Vec::new(),
            working_directory: None,
            stdin: Stdin::empty(),
            is_terminal: false,
            stdout: output.clone(),
            stderr: output,
            memory_limit_bytes: None,
            cpu_limit_millis: None,
            cpu_request_millis: 0,
            group: None,
            outbound: Arc::new(NoOutbound),
            sockets: None,
            request_timeout: Duration::from_secs(30),
            concurrency: 128,
            reuse: None,
        }
    }
}

/// A directory of the machine that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preopen {
    /// Where it is on the machine.
    pub host: PathBuf,
    /// Where the guest sees it.
    pub guest: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// Takes what a guest prints. It is called on the guest's threads and must not wait for long. One that must lose nothing says how
/// much room it has; the guest waits for more.
pub trait LogSink: Send + Sync + 'static {
    /// Some bytes; lines may come in pieces, and several at once. Never more than there was room for.
    fn write(&self, bytes: &[u8]);

    /// How many bytes it can take now.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Ready when there is room; else the task is woken when there may be.
    fn poll_room(&self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Where a guest's HTTP requests go: the embedder decides what it may reach.
pub trait Outbound: Send + Sync + 'static {
    /// Sends `request`, whose URI is absolute, or refuses it.
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, OutboundError>>;
}

/// A guest's request got no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// It is not granted.
    #[error("the destination is not allowed")]
    Denied,
    /// Nothing has that name or address.
    #[error("the destination is unknown")]
    NotFound,
    /// Nothing answers there.
    #[error("the destination refused the connection")]
    Refused,
    /// It did not answer in time.
    #[error("the destination did not answer in time")]
    Timeout,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Refuses every request.
pub struct NoOutbound;

impl Outbound for NoOutbound {
    fn send(&self, _request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, OutboundError>> {
        Box::pin(async { Err(OutboundError::Denied) })
    }
}
