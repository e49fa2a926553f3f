//! What is answered: the body of a guest's answer, which its instance goes with, and what is said in place of one.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::Ended;
use super::calls::Caller;
use crate::grants::{Body, BoxError};

/// A response's body. Its instance ends when it is dropped before its end.
pub(super) struct Streaming {
    body: Body,
    reader: Option<Reader>,
    /// What breaks it off.
    cut: Option<oneshot::Receiver<String>>,
}

/// What hangs on the reading.
enum Reader {
    /// An instance for this request alone.
    Task(AbortOnDropHandle<Ended>),
    /// A request in an instance that may have others.
    Caller(Caller),
}

impl Streaming {
    /// Of an instance for this request alone.
    pub(super) fn of_task(body: Body, task: AbortOnDropHandle<Ended>) -> Body {
        Self { body, reader: Some(Reader::Task(task)), cut: None }.boxed()
    }

    /// Of an instance that may have other requests too.
    pub(super) fn of_call(body: Body, caller: Caller, cut: oneshot::Receiver<String>) -> Body {
        Self { body, reader: Some(Reader::Caller(caller)), cut: Some(cut) }.boxed()
    }

    /// All is read: what the guest does after its answer may go on, within its time.
    fn is_read(&mut self) {
        match self.reader.take() {
            Some(Reader::Task(task)) => drop(task.detach()),
            Some(Reader::Caller(caller)) => caller.finish(),
            None => {}
        }
    }

    /// Why it was broken off, if it was.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Option<String> {
        let Poll::Ready(cut) = Pin::new(self.cut.as_mut()?).poll(context) else { return None };
        self.cut = None;
        cut.ok()
    }
}

impl http_body::Body for Streaming {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(Some(_))) {
            return polled;
        }
        // A body whose guest has failed just ends.
        if let Some(why) = self.poll_cut(context) {
            return Poll::Ready(Some(Err(why.into())));
        }
        if polled.is_ready() {
            self.is_read();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Streaming {
    /// Whoever knows its length may not ask for its end.
    fn drop(&mut self) {
        if http_body::Body::is_end_stream(&self.body) {
            self.is_read();
        }
    }
}

/// 503, and when to come again.
pub(super) fn overloaded() -> Response<Body> {
    let mut response = failed(StatusCode::SERVICE_UNAVAILABLE, "the function has too many requests");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A line of text with this status.
pub(super) fn failed(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(format!("{message}\n").into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
