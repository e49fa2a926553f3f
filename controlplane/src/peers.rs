//! The other servers over the link: the store's streams, and requests to our own API.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use shoal_link::http::{Body, RequestError};
use shoal_link::{Connection, Pool, StreamKind};
use shoal_store::{Member, PeerIo, PeerStream, Store};

/// How long a store waits for a stream: an election does not wait for the dead. Dialling goes on behind it.
const OPEN: Duration = Duration::from_millis(500);

/// The kind of the link's streams that carries one of the store's.
pub(crate) fn stream_kind(kind: PeerStream) -> StreamKind {
    StreamKind(StreamKind::STORE_FIRST.0 + kind as u8)
}

/// The store's kind of a stream of the link, if it is one.
pub(crate) fn peer_stream(kind: StreamKind) -> Option<PeerStream> {
    PeerStream::from_byte(kind.0.checked_sub(StreamKind::STORE_FIRST.0)?)
}

/// Heartbeats and the log go before what clients ask, and snapshots after it.
fn priority(kind: PeerStream) -> i32 {
    match kind {
        PeerStream::Raft => 3,
        PeerStream::Append => 2,
        PeerStream::Forward => 1,
        PeerStream::Snapshot => -1,
    }
}

/// The way of the store to the other servers.
pub(crate) struct LinkPeers {
    pub pool: Arc<Pool>,
}

impl shoal_store::Peers for LinkPeers {
    fn open(&self, to: &Member, kind: PeerStream) -> BoxFuture<'static, io::Result<Box<dyn PeerIo>>> {
        let (pool, to) = (self.pool.clone(), to.clone());
        Box::pin(async move {
            let opened = async {
                let connection = pool.get(&to.link_address).await.map_err(io::Error::other)?;
                check(&connection, &to)?;
                let stream =
                    connection.open_with_priority(stream_kind(kind), priority(kind)).await.map_err(io::Error::other)?;
                Ok(Box::new(stream) as Box<dyn PeerIo>)
            };
            let late = || io::Error::new(io::ErrorKind::TimedOut, format!("server {:?} does not answer", to.name));
            tokio::time::timeout(OPEN, opened).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

/// An address may have got another owner; a vote must not go to somebody else.
fn check(connection: &Connection, to: &Member) -> io::Result<()> {
    let expected = crate::founding::server_identity(&to.name);
    if *connection.peer() == expected {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} is {:?} and not server {:?}",
        to.link_address,
        connection.peer().common_name,
        to.name
    )))
}

/// The other servers of the cluster, for requests.
#[derive(Clone)]
pub(crate) struct OtherServers {
    pub pool: Arc<Pool>,
    pub store: Store,
}

impl OtherServers {
    /// All members but this one.
    pub(crate) fn list(&self) -> Vec<Member> {
        let own = self.store.own().id;
        self.store.members().into_iter().filter(|member| member.id != own).collect()
    }

    /// Sends one request to `member`.
    pub(crate) async fn request(&self, member: &Member, request: Request<Body>) -> Result<Response<Body>, String> {
        let connection = self.pool.get(&member.link_address).await.map_err(|error| error.to_string())?;
        shoal_link::http::request(&connection, request).await.map_err(|error: RequestError| error.to_string())
    }
}

/// Keeps a connection to every other server, for ever, so that an election finds them made.
pub(crate) async fn keep_connected(servers: OtherServers) {
    loop {
        let others = servers.list();
        let connections = others.iter().map(|member| servers.pool.get(&member.link_address));
        for (member, connection) in others.iter().zip(futures_util::future::join_all(connections).await) {
            if let Err(error) = connection {
                tracing::debug!(server = member.name, %error, "another server cannot be reached");
            }
        }
        tokio::time::sleep(crate::limits::KEEP_CONNECTED).await;
    }
}
