//! HTTP between guests and their embedder: outgoing requests, and the bodies of both sides.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::grants::{Body, BoxError, Outbound, OutboundError};
use crate::limits::BODY_PIECE_BYTES;

/// Sends a guest's requests where its grants say.
pub(crate) struct Hooks {
    pub outbound: Arc<dyn Outbound>,
}

type Completion = Box<dyn Future<Output = Result<()>> + Send>;

impl WasiHttpHooks for Hooks {
    fn default_scheme(&mut self) -> Option<http::uri::Scheme> {
        Some(http::uri::Scheme::HTTP)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_PIECE_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_PIECE_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Completion,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Completion)>> + Send> {
        let outbound = self.outbound.clone();
        Box::new(async move {
            let sent = outbound.send(request.map(from_guest));
            let response = match options.and_then(|options| options.first_byte_timeout) {
                None => sent.await,
                Some(deadline) => tokio::time::timeout(deadline, sent).await.unwrap_or(Err(OutboundError::Timeout)),
            };
            let response =
                response.map_err(to_guest_error)?.map(|body| body.map_err(|error| body_error(&error)).boxed_unsync());
            let done: Completion = Box::new(async { Ok(()) });
            Ok((response, done))
        })
    }
}

fn to_guest_error(error: OutboundError) -> Error {
    match error {
        OutboundError::Denied => Error::HttpRequestDenied,
        OutboundError::NotFound => Error::DestinationNotFound,
        OutboundError::Refused => Error::ConnectionRefused,
        OutboundError::Timeout => Error::HttpResponseTimeout,
        OutboundError::Other(message) => Error::InternalError(Some(message)),
    }
}

/// What a guest is told of a body that breaks off.
pub(crate) fn body_error(error: &BoxError) -> Error {
    Error::InternalError(Some(error.to_string()))
}

/// A body that a guest writes, for us to read.
pub(crate) fn from_guest(body: WasiBody) -> Body {
    FromGuest(Mutex::new(body)).boxed()
}

/// Makes a body `Sync`, which ours must be and a guest's is not; the lock is never contended.
struct FromGuest(Mutex<WasiBody>);

impl http_body::Body for FromGuest {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
        let body = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        Pin::new(body).poll_frame(context).map_err(|error| error.to_string().into())
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
