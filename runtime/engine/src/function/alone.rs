//! How a function of WASI 0.2 answers: one request at a time in an instance, on a task that ends with the request.

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::calls::Place;
use super::response::Streaming;
use super::warm::{Instance, Warm};
use super::{Ended, Function, Inner, LATENESS, broken, failure, refused_by_guest, with_host};
use crate::code::Code;
use crate::cpu::Metered;
use crate::grants::Body;
use crate::hooks;
use crate::stats::Outcome;

/// The program, and its instances that wait for a next request.
pub(super) struct Alone {
    pub code: Arc<Code>,
    pub warm: Arc<Warm>,
}

/// The head of an answer and its body, or what the guest says instead.
type Head = Result<Response<Body>, String>;

impl Function {
    /// The request has its instance for itself.
    pub(super) async fn answer_alone(
        &self,
        alone: &Arc<Alone>,
        request: Request<Body>,
        place: Place,
    ) -> (Outcome, Response<Body>) {
        let (sender, head) = oneshot::channel();
        let (inner, alone) = (self.inner.clone(), alone.clone());
        let run = async move {
            let ended = inner.run(&alone, request, sender).await;
            drop(place);
            ended
        };
        let task = Metered::new(run, self.inner.cpu.clone(), self.inner.engine.cpu.clone());
        let task = AbortOnDropHandle::new(self.inner.engine.guests().spawn(task));
        // Its own time is looked at where it runs, which may be late where the machine is busy.
        let Ok(head) = tokio::time::timeout(self.inner.grants.request_timeout + LATENESS, head).await else {
            return Ended::TooLate.answer();
        };
        match head {
            Ok(Ok(response)) => (Outcome::Answered, response.map(|body| Streaming::of_task(body, task))),
            Ok(Err(code)) => refused_by_guest(&code),
            Err(_) => match task.await {
                Ok(ended) => ended.answer(),
                Err(error) => broken(&error.to_string()),
            },
        }
    }
}

impl Inner {
    async fn run(&self, alone: &Alone, request: Request<Body>, head: oneshot::Sender<Head>) -> Ended {
        let mut killed = self.killed.subscribe();
        let answered = tokio::time::timeout(self.grants.request_timeout, self.answer(alone, request, head));
        let ended = tokio::select! {
            biased;
            _ = killed.wait_for(|killed| *killed) => Ended::Killed,
            answered = answered => answered.unwrap_or(Ended::TooLate),
        };
        self.note(&ended);
        ended
    }

    async fn answer(&self, alone: &Alone, request: Request<Body>, head: oneshot::Sender<Head>) -> Ended {
        let mut instance = match alone.warm.take() {
            Some(instance) => instance,
            None => match self.instantiate(&alone.code).await {
                Ok(instance) => instance,
                Err(ended) => return ended,
            },
        };
        let _counted = self.engine.counters.instance();
        let Instance { store, proxy, .. } = &mut instance;
        let answered = async {
            let request = with_host(request).map(|body| body.map_err(|error| hooks::body_error(&error)));
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
                    alone.warm.keep(instance);
                }
                Ended::Returned
            }
            Err(error) => failure(&error, &instance.store),
        }
    }

    /// A fresh instance, or how it failed.
    async fn instantiate(&self, code: &Arc<Code>) -> Result<Instance, Ended> {
        let proxy = code.get(&self.engine).await.map_err(|error| Ended::Failed(error.to_string()))?;
        let mut store = self.store(proxy.engine())?;
        let began = Instant::now();
        match proxy.instantiate_async(&mut store).await {
            Ok(proxy) => {
                self.engine.counters.instantiations.took(began.elapsed());
                Ok(Instance::new(store, proxy))
            }
            Err(error) => Err(failure(&error, &store)),
        }
    }
}

/// The same resource once more, to see whether it is still there.
fn same<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}
