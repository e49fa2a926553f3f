//! The API from inside the process: the loops' requests go the way of everybody's, without a socket.

use futures_util::future::BoxFuture;
use http::{Request, Response};
use shoal_apiserver::{ApiServer, Peer};
use shoal_client::{Transport, TransportError};
use shoal_link::http::Body;

/// A transport that hands requests to this server's own API, as `user`.
pub(crate) struct LocalTransport {
    pub api: ApiServer,
    pub user: String,
}

impl Transport for LocalTransport {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let (api, user) = (self.api.clone(), self.user.clone());
        Box::pin(async move { Ok(api.handle(request, Peer::Internal(user)).await) })
    }
}
