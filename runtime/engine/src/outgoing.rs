//! How many HTTP requests of one guest are on their way at once: the host pays for each of them, and the guest's memory limit does
//! not see it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::grants::{Body, BoxError, Outbound, OutboundError};

/// Sends requests by another one, only so many at once.
pub(crate) struct Limited {
    outbound: Arc<dyn Outbound>,
    places: Arc<Semaphore>,
}

impl Limited {
    /// With room for `at_once` requests. Whoever comes later waits until an answer of before is read, or given up.
    pub(crate) fn around(outbound: Arc<dyn Outbound>, at_once: usize) -> Arc<dyn Outbound> {
        Arc::new(Self { outbound, places: Arc::new(Semaphore::new(at_once)) })
    }
}

impl Outbound for Limited {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, OutboundError>> {
        let (outbound, places) = (Arc::clone(&self.outbound), Arc::clone(&self.places));
        Box::pin(async move {
            let place = places.acquire_owned().await.expect("nobody closes it");
            let response = outbound.send(request).await?;
            Ok(response.map(|body| Held { body, _place: place }.boxed()))
        })
    }
}

/// An answer's body, which has its request's place until it is dropped.
struct Held {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::Empty;

    use super::*;

    struct Answers;

    impl Outbound for Answers {
        fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, OutboundError>> {
            let is_lost = request.uri().path() == "/lost";
            let answer = if is_lost { Err(OutboundError::NotFound) } else { Ok(Response::new(request.into_body())) };
            std::future::ready(answer).boxed()
        }
    }

    fn request(path: &str) -> Request<Body> {
        let body = Empty::new().map_err(|never| match never {}).boxed();
        Request::get(path).body(body).expect("a request")
    }

    #[test]
    fn a_request_waits_until_the_answer_to_one_before_is_given_up() {
        let outbound = Limited::around(Arc::new(Answers), 1);
        let answer = outbound.send(request("/")).now_or_never().expect("there is room").expect("an answer");
        let mut waits = outbound.send(request("/"));
        assert!((&mut waits).now_or_never().is_none());
        drop(answer);
        drop(waits.now_or_never().expect("there is room again").expect("an answer"));
        // One that gets no answer holds no place.
        assert!(outbound.send(request("/lost")).now_or_never().expect("there is room").is_err());
        assert!(outbound.send(request("/")).now_or_never().is_some());
    }
}
