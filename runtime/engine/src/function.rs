//! An HTTP function: an instance for each request, or one that waits from an earlier request, as many at once as it is granted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::Resource;
use wasmtime::{PoolConcurrencyLimitError, Store};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::cpu::{self, Metered};
use crate::engine::Engine;
use crate::error::StartError;
use crate::grants::{Body, Grants};
use crate::hooks;
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
use crate::warm::{Instance, Warm};

/// How much later than granted a guest may notice that its time is over.
const LATENESS: Duration = Duration::from_secs(1);

/// A function that answers requests. Cheap to clone; clones share the grants' limits.
#[derive(Clone)]
pub struct Function {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    program: Handler,
    grants: Grants,
    memory: Arc<memory::Meter>,
    cpu: Arc<cpu::Meter>,
    warm: Arc<Warm>,
    /// Places to work. An instance keeps its place to its very end, its body and what it does afterwards included.
    places: Arc<Semaphore>,
    /// Places to work and places to wait.
    all_places: Arc<Semaphore>,
    killed: watch::Sender<bool>,
    last_failure: Mutex<Option<String>>,
    failed: Notify,
}

impl Function {
    pub(crate) fn new(engine: Arc<Engine>, program: Handler, grants: Grants) -> Result<Self, StartError> {
        let sockets = grants.sockets.clone().map(|sockets| Arc::new(OnlyOutgoing(sockets)) as Arc<dyn Sockets>);
        // An input would last no longer than a request, and so would a port.
        let outbound = Limited::new(grants.outbound.clone(), OUTGOING_REQUESTS);
        let grants = Grants { sockets, outbound, stdin: Stdin::empty(), ..grants };
        let memory = memory::Meter::new(grants.memory_limit_bytes);
        // What cannot be granted shows now and not at the first request.
        let killed = watch::Sender::new(false);
        Host::new(&grants, &memory, killed.subscribe())?;
        let concurrency = grants.concurrency.max(1);
        let warm = Warm::new(grants.reuse, Arc::clone(&engine.warm_places));
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                warm,
                program,
                memory,
                cpu: cpu::Meter::new(grants.cpu_limit_millis, grants.cpu_request_millis),
                places: Arc::new(Semaphore::new(concurrency)),
                all_places: Arc::new(Semaphore::new(concurrency * 2)),
                grants,
                killed,
                last_failure: Mutex::default(),
                failed: Notify::new(),
            }),
        })
    }

    /// Answers one request with a fresh instance. Never fails: 500 for a guest that traps or answers nothing, 503 with
    /// Retry-After for more requests than may wait, 504 for a guest that takes too long.
    ///
    /// Dropping the future, or the response's body, ends the instance.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let (outcome, response) = self.answer(request).await;
        self.inner.engine.counters.request(outcome);
        response
    }

    async fn answer(&self, request: Request<Body>) -> (Outcome, Response<Body>) {
        let refused = || (Outcome::Refused, overloaded());
        let Ok(place_or_wait) = self.inner.all_places.clone().try_acquire_owned() else { return refused() };
        let Some(place) = self.inner.place().await else { return refused() };
        let (sender, head) = oneshot::channel();
        let inner = self.inner.clone();
        let run = async move {
            let ended = inner.run(request, sender).await;
            drop((place, place_or_wait));
            ended
        };
        let task = Metered::new(run, self.inner.cpu.clone(), self.inner.engine.cpu.clone());
        let task = AbortOnDropHandle::new(self.inner.engine.guests().spawn(task));
        // Its own time is looked at where it runs, which may be late where the machine is busy.
        let Ok(head) = tokio::time::timeout(self.inner.grants.request_timeout + LATENESS, head).await else {
            return Ended::TooLate.answer();
        };
        match head {
            Ok(Ok(response)) => {
                let body = |body| Streaming { body, task: Some(task) }.boxed();
                (Outcome::Answered, response.map(body))
            }
            Ok(Err(code)) => {
                let message = format!("the function answered with an error: {code}");
                (Outcome::Error, failed(StatusCode::BAD_GATEWAY, &message))
            }
            Err(_) => match task.await {
                Ok(ended) => ended.answer(),
                Err(error) => {
                    let message = format!("the engine failed: {error}");
                    (Outcome::Trapped, failed(StatusCode::INTERNAL_SERVER_ERROR, &message))
                }
            },
        }
    }

    /// Ends every instance at once, and answers 503 from now on.
    pub fn kill(&self) {
        self.inner.killed.send_replace(true);
        self.inner.warm.clear();
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
enum Ended {
    Returned,
    Failed(String),
    TooLate,
    Killed,
    /// All instances that the engine may have are busy, with this or other functions.
    NoSlot,
}

impl Ended {
    /// What is answered in place of a guest that has not.
    fn answer(self) -> (Outcome, Response<Body>) {
        match self {
            Ended::TooLate => (Outcome::TimedOut, failed(StatusCode::GATEWAY_TIMEOUT, "the function took too long")),
            Ended::Killed => (Outcome::Stopped, failed(StatusCode::SERVICE_UNAVAILABLE, "the function was stopped")),
            Ended::NoSlot => (Outcome::Refused, overloaded()),
            Ended::Failed(message) => {
                let first = message.lines().next().unwrap_or_default();
                let message = format!("the function failed: {first}");
                (Outcome::Trapped, failed(StatusCode::INTERNAL_SERVER_ERROR, &message))
            }
            Ended::Returned => {
                let message = "the function returned without an answer";
                (Outcome::Unanswered, failed(StatusCode::INTERNAL_SERVER_ERROR, message))
            }
        }
    }
}

/// The head of an answer and its body, or what the guest says instead.
type Head = Result<Response<Body>, String>;

impl Inner {
    /// A place to work, as soon as there is one; none if that takes too long.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        let place = tokio::time::timeout(self.grants.request_timeout, self.places.clone().acquire_owned()).await;
        place.ok()?.ok()
    }

    async fn run(self: Arc<Self>, request: Request<Body>, head: oneshot::Sender<Head>) -> Ended {
        let mut killed = self.killed.subscribe();
        let ended = tokio::select! {
            biased;
            _ = killed.wait_for(|killed| *killed) => Ended::Killed,
            answered = tokio::time::timeout(self.grants.request_timeout, self.answer(request, head)) => answered.unwrap_or(Ended::TooLate),
        };
        // Also one that failed after its answer had begun, when nobody waits for its end any more.
        if let Some(failure) = self.failure(&ended) {
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            self.failed.notify_one();
        }
        ended
    }

    /// What is to be told of an instance that ended so; none if it is no failure of the guest's.
    fn failure(&self, ended: &Ended) -> Option<String> {
        match ended {
            Ended::Failed(message) => Some(message.clone()),
            Ended::TooLate => Some(format!("it took longer than {:?}", self.grants.request_timeout)),
            Ended::Returned | Ended::Killed | Ended::NoSlot => None,
        }
    }

    async fn answer(&self, mut request: Request<Body>, head: oneshot::Sender<Head>) -> Ended {
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
        }
        let proxy = match &self.program {
            Handler::Proxy(proxy) => proxy,
            Handler::Service(service) => return self.answer_concurrently(service, request, head).await,
        };
        let mut instance = match self.warm.take() {
            Some(instance) => instance,
            None => match self.instantiate(proxy).await {
                Ok(instance) => instance,
                Err(ended) => return ended,
            },
        };
        let _counted = self.engine.counters.instance();
        let Instance { store, proxy, .. } = &mut instance;
        let answered = async {
            let request = request.map(|body| body.map_err(|error| hooks::body_error(&error)));
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let out = store.data_mut().http().new_response_outparam_from_callback(move |answer| {
                let answer = answer.map(|response| response.map(hooks::from_guest));
                // Whoever asked may be gone.
                let _ = head.send(answer.map_err(|code| format!("{code:?}")));
            })?;
            let place = same(&out);
            proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, out).await?;
            Ok(store.data_mut().http().table.get(&place).is_err())
        };
        match answered.await {
            Ok(has_answered) => {
                // One that has not goes: whoever waits for the answer waits for what the instance holds.
                if has_answered && !*self.killed.borrow() {
                    self.warm.keep(instance);
                }
                Ended::Returned
            }
            Err(error) => ended(&error, &instance.store),
        }
    }

    /// As [`Inner::answer`], by WASI 0.3: always with a fresh instance.
    async fn answer_concurrently(
        &self,
        service: &ServicePre<Host>,
        request: Request<Body>,
        head: oneshot::Sender<Head>,
    ) -> Ended {
        let mut store = match self.store(service.engine()) {
            Ok(store) => store,
            Err(ended) => return ended,
        };
        let began = Instant::now();
        let service = match service.instantiate_async(&mut store).await {
            Ok(service) => service,
            Err(error) => return ended(&error, &store),
        };
        self.engine.counters.instantiations.took(began.elapsed());
        let _counted = self.engine.counters.instance();
        let request = request.map(|body| body.map_err(|error| hooks::body_error(&error)));
        let answered = store.run_concurrent(async |store| {
            let request = store.with(|mut store| p3::Request::from_http(store.data_mut().http().hooks, request).0);
            let response = match service.handle(store, request).await? {
                Ok(response) => response,
                Err(code) => {
                    // Whoever asked may be gone.
                    let _ = head.send(Err(format!("{code:?}")));
                    return Ok(());
                }
            };
            let response = store.with(|store| response.into_http(store, async { Ok(()) }))?;
            let (parts, body) = response.into_parts();
            let (body, is_over) = hooks::from_guest_until(body);
            let response = Response::from_parts(parts, body);
            if head.send(Ok(response)).is_err() {
                return Ok(());
            }
            // The guest goes on to write it.
            is_over.await;
            std::future::poll_fn(|context| store.poll_no_interesting_tasks(context)).await;
            wasmtime::Result::Ok(())
        });
        match answered.await.and_then(|answered| answered) {
            Ok(()) => Ended::Returned,
            Err(error) => ended(&error, &store),
        }
    }

    /// A fresh instance, or how it failed.
    async fn instantiate(&self, proxy: &ProxyPre<Host>) -> Result<Instance, Ended> {
        let mut store = self.store(proxy.engine())?;
        let began = Instant::now();
        match proxy.instantiate_async(&mut store).await {
            Ok(proxy) => {
                self.engine.counters.instantiations.took(began.elapsed());
                Ok(Instance::new(store, proxy))
            }
            Err(error) => Err(ended(&error, &store)),
        }
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

/// The same resource once more, to see whether it is still there.
fn same<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}

fn ended(error: &wasmtime::Error, store: &Store<Host>) -> Ended {
    if store.data().memory.exceeded() {
        Ended::Failed("it exceeded its memory limit".to_string())
    } else if error.is::<PoolConcurrencyLimitError>() {
        Ended::NoSlot
    } else {
        Ended::Failed(trap_message(error))
    }
}

/// A response's body, whose instance lives as long as it is read.
struct Streaming {
    body: Body,
    task: Option<AbortOnDropHandle<Ended>>,
}

impl http_body::Body for Streaming {
    type Data = bytes::Bytes;
    type Error = crate::grants::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let polled = std::pin::Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, std::task::Poll::Ready(None)) {
            // All is read: what the guest does after its answer may go on, within its time.
            drop(self.task.take().map(AbortOnDropHandle::detach));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn overloaded() -> Response<Body> {
    let mut response = failed(StatusCode::SERVICE_UNAVAILABLE, "the function has too many requests");
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

fn failed(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(format!("{message}\n").into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
