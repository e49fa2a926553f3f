//! A function as the network calls it: counted, so that it can be drained.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use shoal_network::{Body, BoxError, HttpTarget, Refused};
use tokio::sync::Notify;

use crate::guests::GuestFunction;

/// One run of a function container.
pub struct FunctionTarget {
    function: Arc<dyn GuestFunction>,
    in_flight: Arc<InFlight>,
    is_stopping: AtomicBool,
}

#[derive(Default)]
struct InFlight {
    count: AtomicUsize,
    became_idle: Notify,
}

/// Counts one request from its head to the end of its answer's body.
struct Counted(Arc<InFlight>);

impl Counted {
    fn new(in_flight: &Arc<InFlight>) -> Counted {
        in_flight.count.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(in_flight))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.became_idle.notify_waiters();
        }
    }
}

impl FunctionTarget {
    /// Takes requests from now on.
    pub fn new(function: Arc<dyn GuestFunction>) -> Arc<FunctionTarget> {
        Arc::new(FunctionTarget { function, in_flight: Arc::default(), is_stopping: AtomicBool::new(false) })
    }

    /// Refuses new requests and returns when the last one that was taken is answered. Cancel safe.
    pub async fn drain(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        loop {
            let idle = self.in_flight.became_idle.notified();
            if self.in_flight.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Refuses new requests and ends those that are under way.
    pub fn kill(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.function.kill();
    }
}

impl HttpTarget for FunctionTarget {
    fn call(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, Refused>> {
        Box::pin(async move {
            let counted = Counted::new(&self.in_flight);
            // Counted first: a drain that starts now waits for this request.
            if self.is_stopping.load(Ordering::SeqCst) {
                return Err(Refused::new(request, "the pod is stopping"));
            }
            let response = self.function.call(request).await;
            Ok(response.map(|body| CountedBody { body, _counted: counted }.boxed()))
        })
    }
}

/// A body that counts as in flight until it is dropped.
struct CountedBody {
    body: Body,
    _counted: Counted,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
