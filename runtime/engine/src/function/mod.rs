//! An HTTP function: an instance for each request, or one that waits from an earlier request, as many at once as it is granted.
//!
//! Of WASI 0.2 an instance works on one request at a time (`alone`), and `warm` keeps it for the next. Of WASI 0.3 it may work on
//! several: it is a task of its own (`instance`), which the requests find by the `exchange`; what is known of those in it is in `calls`.

mod alone;
mod calls;
mod exchange;
mod instance;
mod response;
mod warm;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use wasmtime::{PoolConcurrencyLimitError, Store};

use crate::cpu;
use crate::engine::Engine;
use crate::error::StartError;
use crate::grants::{Body, Grants, Reuse};
use crate::host::Host;
use crate::input::Stdin;
use crate::limits::OUTGOING_REQUESTS;
use crate::memory;
use crate::module::Handler;
use crate::outgoing::Limited;
use crate::process::trap_message;
use crate::sockets::{OnlyOutgoing, Sockets};
use crate::stats::Outcome;
use crate::usage::Usage;

use self::alone::Alone;
use self::calls::{Caller, Place, Refusal, Seat, Waiting};
use self::exchange::Exchange;
use self::instance::{Call, Shared};
use self::response::{Streaming, failed, overloaded};
use self::warm::Warm;

/// How much later than granted a guest may notice that its time is over.
const LATENESS: Duration = Duration::from_secs(1);

/// A function that answers requests. Cheap to clone; clones share the grants' limits.
#[derive(Clone)]
pub struct Function {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    program: Program,
    grants: Grants,
    memory: Arc<memory::Meter>,
    cpu: Arc<cpu::Meter>,
    /// Places to work. An instance keeps its place to its very end, its body and what it does afterwards included.
    places: Arc<Semaphore>,
    /// Places to work and places to wait.
    all_places: Arc<Semaphore>,
    killed: watch::Sender<bool>,
    last_failure: Mutex<Option<String>>,
    failed: Notify,
}

/// How it answers, and the instances that wait for a next request.
enum Program {
    Alone(Arc<Alone>),
    Concurrently(Arc<Shared>),
}

impl Program {
    fn new(engine: &Engine, handler: Handler, reuse: Option<Reuse>) -> Result<Self, StartError> {
        let all_resting = Arc::clone(&engine.warm_places);
        match handler {
            Handler::Proxy(_) if reuse.is_some_and(|reuse| reuse.concurrency > 1) => Err(StartError::OneAtATime),
            Handler::Proxy(code) => Ok(Self::Alone(Arc::new(Alone { code, warm: Warm::new(reuse, all_resting) }))),
            Handler::Service(service) => {
                let reuse = reuse.unwrap_or(Reuse { instances: 0, requests: 1, concurrency: 1 });
                let resting = [Arc::new(Semaphore::new(reuse.instances)), all_resting];
                Ok(Self::Concurrently(Arc::new(Shared { service, exchange: Exchange::new(), reuse, resting })))
            }
        }
    }
}

impl Function {
    pub(crate) fn new(engine: Arc<Engine>, handler: Handler, grants: Grants) -> Result<Self, StartError> {
        let sockets = grants.sockets.clone().map(|sockets| Arc::new(OnlyOutgoing(sockets)) as Arc<dyn Sockets>);
        // An input would last no longer than a request, and so would a port.
        let outbound = Limited::around(grants.outbound.clone(), OUTGOING_REQUESTS);
        let grants = Grants { sockets, outbound, stdin: Stdin::empty(), ..grants }.with_each_variable_once();
        let memory = memory::Meter::new(grants.memory_limit_bytes, grants.group.clone());
        // What cannot be granted shows now and not at the first request.
        let killed = watch::Sender::new(false);
        Host::new(&grants, &memory, killed.subscribe())?;
        let concurrency = grants.concurrency.max(1);
        let program = Program::new(&engine, handler, grants.reuse)?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                program,
                memory,
                cpu: cpu::Meter::new(grants.cpu_limit_millis, grants.cpu_request_millis, grants.group.clone()),
                places: Arc::new(Semaphore::new(concurrency)),
                all_places: Arc::new(Semaphore::new(concurrency * 2)),
                grants,
                killed,
                last_failure: Mutex::default(),
                failed: Notify::new(),
            }),
        })
    }

    /// Answers one request, with a fresh instance if reuse is not granted. Never fails: 500 for a guest that traps or answers nothing,
    /// 503 with Retry-After for more requests than may wait, 504 for a guest that takes too long.
    ///
    /// Dropping the future, or the response's body before its end, ends the instance, or has it end with those who are in it.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let (outcome, response) = self.answer(request).await;
        self.inner.engine.counters.request(outcome);
        response
    }

    async fn answer(&self, request: Request<Body>) -> (Outcome, Response<Body>) {
        let refused = || (Outcome::Refused, overloaded());
        let Ok(place_or_wait) = self.inner.all_places.clone().try_acquire_owned() else { return refused() };
        let Some(place) = self.inner.place().await else { return refused() };
        let place = (place, place_or_wait);
        match &self.inner.program {
            Program::Alone(alone) => self.answer_alone(alone, request, place).await,
            Program::Concurrently(shared) => self.answer_concurrently(shared, request, place).await,
        }
    }

    /// By WASI 0.3: an instance that has room takes the request, or a new one is made for it.
    async fn answer_concurrently(
        &self,
        shared: &Arc<Shared>,
        request: Request<Body>,
        place: Place,
    ) -> (Outcome, Response<Body>) {
        let time_limit = self.inner.grants.request_timeout;
        let (head, answer) = oneshot::channel();
        let seat = Arc::new(Seat::default());
        let caller = Caller::new(Arc::clone(&seat));
        let deadline = tokio::time::Instant::now() + time_limit;
        let inner = Arc::clone(&self.inner);
        let waiting = Waiting { seat, head, deadline, place, keeps: Arc::clone(&inner) as _ };
        let call = Call { request: with_host(request), waiting, inner };
        if let Some(call) = shared.exchange.offer(call) {
            instance::start(shared, call);
        }
        // Its own time is looked at where it runs, which may be late where the machine is busy.
        match tokio::time::timeout(time_limit + LATENESS, answer).await {
            Err(_) => Ended::TooLate.answer(),
            Ok(Ok(Ok((response, cut)))) => {
                (Outcome::Answered, response.map(|body| Streaming::of_call(body, caller, cut)))
            }
            Ok(Ok(Err(refusal))) => {
                caller.finish();
                match refusal {
                    Refusal::Code(code) => refused_by_guest(&code),
                    Refusal::Ended(ended) => ended.answer(),
                }
            }
            Ok(Err(_)) => broken("an instance is lost"),
        }
    }

    /// Ends every instance at once, and answers 503 from now on.
    pub fn kill(&self) {
        self.inner.killed.send_replace(true);
        if let Program::Alone(alone) = &self.inner.program {
            alone.warm.clear();
        }
    }

    /// What the last guest that failed said, and forgets it.
    pub fn take_failure(&self) -> Option<String> {
        self.inner.last_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until a guest has failed, and takes what it said; of several the last one. Cancel safe. For one caller.
    pub async fn failure(&self) -> String {
        loop {
            if let Some(failure) = self.take_failure() {
                return failure;
            }
            self.inner.failed.notified().await;
        }
    }

    /// What all its instances use.
    pub fn usage(&self) -> Usage {
        Usage { memory: self.inner.memory.clone(), cpu: self.inner.cpu.clone() }
    }
}

/// How an instance ended.
#[derive(Debug, Clone, thiserror::Error)]
enum Ended {
    #[error("the function returned without an answer")]
    Returned,
    #[error("the function failed: {}", .0.lines().next().unwrap_or_default())]
    Failed(String),
    #[error("the function took too long")]
    TooLate,
    #[error("the function was stopped")]
    Killed,
    /// All instances that the engine may have are busy, with this or other functions.
    #[error("the function has too many requests")]
    NoSlot,
}

impl Ended {
    /// What is answered in place of a guest that has not.
    fn answer(self) -> (Outcome, Response<Body>) {
        let (outcome, status) = match self {
            Ended::TooLate => (Outcome::TimedOut, StatusCode::GATEWAY_TIMEOUT),
            Ended::Killed => (Outcome::Stopped, StatusCode::SERVICE_UNAVAILABLE),
            Ended::NoSlot => return (Outcome::Refused, overloaded()),
            Ended::Failed(_) => (Outcome::Trapped, StatusCode::INTERNAL_SERVER_ERROR),
            Ended::Returned => (Outcome::Unanswered, StatusCode::INTERNAL_SERVER_ERROR),
        };
        (outcome, failed(status, &self.to_string()))
    }
}

/// The guest said an error of WASI in place of an answer.
fn refused_by_guest(code: &str) -> (Outcome, Response<Body>) {
    let message = format!("the function answered with an error: {code}");
    (Outcome::Error, failed(StatusCode::BAD_GATEWAY, &message))
}

fn broken(why: &str) -> (Outcome, Response<Body>) {
    (Outcome::Trapped, failed(StatusCode::INTERNAL_SERVER_ERROR, &format!("the engine failed: {why}")))
}

/// WASI asks for a host where HTTP/1.0 has none.
fn with_host(mut request: Request<Body>) -> Request<Body> {
    if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
    }
    request
}

impl Inner {
    /// A place to work, as soon as there is one; none if that takes too long.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        let place = tokio::time::timeout(self.grants.request_timeout, self.places.clone().acquire_owned()).await;
        place.ok()?.ok()
    }

    /// Keeps what a guest said that failed: also one that did after its answer had begun, when nobody waits for its end any more.
    fn note(&self, ended: &Ended) {
        let failure = match ended {
            Ended::Failed(message) => message.clone(),
            Ended::TooLate => format!("it took longer than {:?}", self.grants.request_timeout),
            Ended::Returned | Ended::Killed | Ended::NoSlot => return,
        };
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.failed.notify_one();
    }

    /// What an instance is made in.
    fn store(&self, engine: &wasmtime::Engine) -> Result<Store<Host>, Ended> {
        let host = Host::new(&self.grants, &self.memory, self.killed.subscribe());
        let host = host.map_err(|error| Ended::Failed(error.to_string()))?;
        let mut store = Store::new(engine, host);
        store.limiter(|host| &mut host.memory);
        cpu::meter_store(&mut store, &self.cpu);
        Ok(store)
    }
}

fn failure(error: &wasmtime::Error, store: &Store<Host>) -> Ended {
    if store.data().memory.exceeded() {
        Ended::Failed("it exceeded its memory limit".to_string())
    } else if error.is::<PoolConcurrencyLimitError>() {
        Ended::NoSlot
    } else {
        Ended::Failed(trap_message(error))
    }
}
