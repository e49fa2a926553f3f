//! An instance of WASI 0.3: it works on one request or several at once, and takes more as its function allows.
//!
//! All that it does is one task. A guest that computes, or calls an import that blocks it, holds its store, and nothing else within
//! goes on meanwhile, not even a clock: what ends an instance stands outside (`calls`), and an instance that is held does not ask for
//! requests, so that they go to others.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Request;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use super::calls::{CallId, Calls, Place, Waiting};
use super::exchange::{Exchange, InstanceId};
use super::{Ended, Inner, failure};
use crate::cpu::Metered;
use crate::grants::{Body, Reuse};
use crate::hooks;
use crate::host::Host;

/// What the instances of a function have in common.
pub(super) struct Shared {
    pub service: ServicePre<Host>,
    pub exchange: Exchange<Call>,
    pub reuse: Reuse,
    /// Places for instances that wait for a request: the function's, and the engine's for all functions.
    pub resting: [Arc<Semaphore>; 2],
}

/// A request on its way to an instance.
pub(super) struct Call {
    pub request: Request<Body>,
    pub waiting: Waiting,
    pub inner: Arc<Inner>,
}

/// Makes an instance for a request that none has room for.
///
/// Its task ends with its last request, or when it has waited for the next one for long, or with its function.
pub(super) fn start(shared: &Arc<Shared>, call: Call) {
    let inner = Arc::clone(&call.inner);
    let task = Metered::new(run(Arc::clone(shared), call), inner.cpu.clone(), inner.engine.cpu.clone());
    inner.engine.guests().spawn(task);
}

async fn run(shared: Arc<Shared>, first: Call) {
    let inner = Arc::clone(&first.inner);
    let mut killed = inner.killed.subscribe();
    let instance = Instance {
        id: shared.exchange.name(),
        calls: Calls::new(Arc::clone(&inner.engine.counters)),
        shared,
        is_asking: AtomicBool::new(false),
        has_turned: AtomicBool::new(false),
        has_room: AtomicBool::new(false),
        may_take: AtomicBool::new(false),
    };
    let Some(first) = instance.begin(first) else { return };
    let mut store = match inner.store(instance.shared.service.engine()) {
        Ok(store) => store,
        Err(ended) => return instance.calls.end(&ended),
    };
    let engine = Arc::downgrade(&inner.engine);
    // While it rests its function may go, and it goes too.
    let function = Arc::downgrade(&inner);
    drop(inner);
    let outcome = tokio::select! {
        biased;
        _ = killed.wait_for(|killed| *killed) => Ended::Killed,
        lost = instance.calls.lost() => lost,
        worked = async {
            let began = Instant::now();
            let service = match instance.shared.service.instantiate_async(&mut store).await {
                Ok(service) => service,
                Err(error) => return failure(&error, &store),
            };
            if let Some(engine) = engine.upgrade() {
                engine.counters.instantiations.took(began.elapsed());
            }
            let worked = instance.drive(store.run_concurrent(async |store| instance.work(store, &service, first).await));
            match worked.await.and_then(|worked| worked) {
                Ok(()) => Ended::Returned,
                Err(error) => failure(&error, &store),
            }
        } => worked,
    };
    if let Some(function) = function.upgrade() {
        function.note(&outcome);
    }
    // Before the store goes: a body that ends with it would seem to be whole.
    instance.calls.end(&outcome);
    drop(store);
}

/// An instance that works, or waits for a request.
struct Instance {
    id: InstanceId,
    calls: Arc<Calls>,
    shared: Arc<Shared>,
    /// Whether it asks for requests.
    is_asking: AtomicBool,
    /// Whether the loop that takes requests had its turn since this was last false.
    has_turned: AtomicBool,
    /// Whether there is room beside the requests that it works on.
    has_room: AtomicBool,
    /// Whether it may take another one beside them: not before it waits for something. Who computes is no help to others.
    may_take: AtomicBool,
}

impl Instance {
    /// Takes a request in; none if nobody waits for it any more.
    fn begin(&self, call: Call) -> Option<(CallId, Request<Body>)> {
        Some((self.calls.begin(call.waiting)?, call.request))
    }

    /// Polls what the store does, and sees whether somebody holds it.
    async fn drive<T>(&self, running: impl Future<Output = T>) -> T {
        let mut running = pin!(running);
        std::future::poll_fn(|context| {
            self.has_turned.store(false, Relaxed);
            if let Poll::Ready(outcome) = running.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            let has_turned = self.has_turned.swap(false, Relaxed);
            if has_turned && self.has_room.load(Relaxed) {
                // The guest may have begun to compute after the turn: then there is no second one.
                self.may_take.store(true, Relaxed);
                if let Poll::Ready(outcome) = running.as_mut().poll(context) {
                    return Poll::Ready(outcome);
                }
                if !self.has_turned.load(Relaxed) {
                    self.step_back();
                }
            } else if !has_turned {
                self.step_back();
            }
            Poll::Pending
        })
        .await
    }

    /// Asks for no requests until there is another turn.
    fn step_back(&self) {
        self.may_take.store(false, Relaxed);
        if !self.is_asking.swap(false, Relaxed) {
            return;
        }
        for call in self.shared.exchange.withdraw(self.id) {
            start(&self.shared, call);
        }
    }

    /// Works on requests until it has had as many as it may, and nothing of them goes on any more.
    async fn work(
        &self,
        store: &Accessor<Host>,
        service: &Service,
        first: (CallId, Request<Body>),
    ) -> wasmtime::Result<()> {
        let function = *service.wasi_http_handler().func_handle().func();
        let Reuse { requests, concurrency, .. } = self.shared.reuse;
        let mut working: FuturesUnordered<BoxFuture<'_, wasmtime::Result<()>>> = FuturesUnordered::new();
        working.push(Box::pin(self.handle(store, service, first)));
        let mut taken = 1;
        std::future::poll_fn(|context| {
            self.has_turned.store(true, Relaxed);
            loop {
                match working.poll_next_unpin(context) {
                    Poll::Ready(Some(Ok(()))) => continue,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) | Poll::Pending => {}
                }
                let (running, takes_more) = self.calls.look(context.waker());
                // What a guest does after its answers counts as a request where there may be only one.
                let is_at_rest = running == 0 && store.poll_no_interesting_tasks(context).is_ready();
                let takes_more = takes_more && taken < requests;
                let has_room = takes_more
                    && running < concurrency
                    && (running > 0 || is_at_rest || concurrency > 1)
                    && store.poll_ready_for_concurrent_call(function, context).is_ready();
                self.has_room.store(has_room && !is_at_rest, Relaxed);
                if has_room && (is_at_rest || self.may_take.load(Relaxed)) {
                    self.is_asking.store(true, Relaxed);
                    if let Poll::Ready(call) = self.shared.exchange.poll_take(self.id, context) {
                        self.is_asking.store(false, Relaxed);
                        self.may_take.store(false, Relaxed);
                        if let Some(call) = self.begin(call) {
                            taken += 1;
                            working.push(Box::pin(self.handle(store, service, call)));
                        }
                        continue;
                    }
                } else {
                    self.step_back();
                }
                if is_at_rest && !(takes_more && self.calls.rest(tokio::time::Instant::now(), || self.resting_places()))
                {
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
        })
        .await
    }

    fn resting_places(&self) -> Option<Place> {
        let [own, all] = &self.shared.resting;
        Some((Arc::clone(own).try_acquire_owned().ok()?, Arc::clone(all).try_acquire_owned().ok()?))
    }

    /// Has the guest answer one request. The body of the answer goes on by itself.
    async fn handle(
        &self,
        store: &Accessor<Host>,
        service: &Service,
        (id, request): (CallId, Request<Body>),
    ) -> wasmtime::Result<()> {
        let request = request.map(|body| body.map_err(|error| hooks::body_error(&error)));
        let request = store.with(|mut store| p3::Request::from_http(store.data_mut().http().hooks, request).0);
        match service.handle(store, request).await? {
            Ok(response) => {
                let response = store.with(|store| response.into_http(store, async { Ok(()) }))?;
                self.calls.answer(id, response.map(hooks::from_guest));
            }
            Err(code) => self.calls.refuse(id, format!("{code:?}")),
        }
        Ok(())
    }
}

impl Drop for Instance {
    /// Also one whose task has panicked: what it was called for is for others, and who is in it waits for nothing.
    fn drop(&mut self) {
        self.step_back();
        self.calls.end(&Ended::Failed("the engine lost its instance".to_string()));
    }
}
