//! Connections of any protocol to pods, Services and node ports.
//!
//! A connection goes to one endpoint and stays there; another one is tried only while none has taken it. What is at the
//! other end, a process or a function, only its own node knows: that one says so when it is asked, and a function's answer
//! is remembered as long as it is an endpoint.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use shoal_link::{Stream, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::body::strip_hop_by_hop;
use crate::forward::{Network, NetworkError};
use crate::limits::{ATTEMPTS, LOCAL_CONNECT, NODE_REPLY, PIPE_BYTES};
use crate::listeners::Door;
use crate::local::{HttpTarget, LocalTarget};
use crate::ports::ByteStream;
use crate::table::{Endpoint, Protocol, ServiceName};
use crate::text_response;
use crate::wire::{Head, Reply, Wanted};

/// What answers at the other end.
pub enum Opened {
    /// A process, or a function that speaks HTTP/1.1 on the connection.
    Stream(ByteStream),
    /// A function, where only processes were asked for: it takes requests.
    Function,
}

/// Why an endpoint took no connection.
pub(crate) enum NotOpened {
    /// Nothing listens there.
    Refused(String),
    /// Its node cannot be asked.
    Unreachable(String),
}

/// The endpoints that are known to be functions.
#[derive(Default)]
pub(crate) struct Functions(Mutex<BTreeSet<SocketAddr>>);

impl Functions {
    fn contains(&self, address: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }

    fn add(&self, address: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    }

    pub(crate) fn retain(&self, is_endpoint: impl Fn(SocketAddr) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|address| is_endpoint(*address));
    }
}

impl Network {
    /// Opens a connection to a pod's port, wherever it runs; a function there speaks HTTP/1.1 on it.
    ///
    /// # Errors
    /// [`NetworkError::Refused`].
    pub async fn connect_pod(&self, from: SocketAddr, to: SocketAddr) -> Result<ByteStream, NetworkError> {
        stream(self.open_one_of(vec![self.endpoint(to)], from, Wanted::Any).await)
    }

    /// Opens a connection to one of a Service's ready endpoints; a function there speaks HTTP/1.1 on it.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn connect_service(
        &self,
        name: &ServiceName,
        port: u16,
        from: SocketAddr,
    ) -> Result<ByteStream, NetworkError> {
        let table = self.table();
        let service_port = table.service_port(name, Protocol::Tcp, port);
        let candidates =
            self.connection_candidates(service_port.ok_or_else(|| NetworkError::NoPort(name.clone(), port))?);
        if candidates.is_empty() {
            return Err(NetworkError::NoEndpoint(name.clone()));
        }
        stream(self.open_one_of(candidates, from, Wanted::Any).await)
    }

    /// Opens a connection to a process behind a listener, or says that its next endpoint is a function.
    ///
    /// Where nobody can be asked what is there, a function is supposed: its answer says what is wrong.
    ///
    /// # Errors
    /// [`NetworkError::Refused`] if nothing listens at the endpoints.
    pub(crate) async fn open_door(&self, door: Door, from: SocketAddr) -> Result<Opened, NetworkError> {
        let table = self.table();
        let candidates = match door {
            Door::NodePort(node_port) => match table.service_of_node_port(Protocol::Tcp, node_port) {
                Some((_, port)) => self.connection_candidates(port),
                None => return Ok(Opened::Function),
            },
            Door::Pod(address) => vec![self.endpoint(address)],
        };
        match self.open_one_of(candidates, from, Wanted::Bytes).await {
            Ok(opened) => Ok(opened),
            Err(NotOpened::Refused(reason)) => Err(NetworkError::Refused(reason)),
            Err(NotOpened::Unreachable(_)) => Ok(Opened::Function),
        }
    }

    /// A pod by its address, wherever it runs.
    fn endpoint(&self, address: SocketAddr) -> Endpoint {
        let node = self.table().node_of(address.ip()).unwrap_or_default().to_owned();
        Endpoint { address, node, ready: true }
    }

    /// Tries the candidates in their order. That nobody could be asked counts more than that some refused.
    async fn open_one_of(
        &self,
        candidates: Vec<Endpoint>,
        from: SocketAddr,
        wanted: Wanted,
    ) -> Result<Opened, NotOpened> {
        let mut refused = None;
        let mut unreachable = candidates.is_empty().then(|| "there is no endpoint".to_owned());
        for endpoint in candidates.into_iter().take(ATTEMPTS) {
            match self.open(&endpoint, from, wanted).await {
                Ok(opened) => return Ok(opened),
                Err(NotOpened::Refused(reason)) => refused = Some(reason),
                Err(NotOpened::Unreachable(reason)) => unreachable = Some(reason),
            }
        }
        Err(match unreachable {
            Some(reason) => NotOpened::Unreachable(reason),
            None => NotOpened::Refused(refused.unwrap_or_default()),
        })
    }

    async fn open(&self, endpoint: &Endpoint, from: SocketAddr, wanted: Wanted) -> Result<Opened, NotOpened> {
        let to = endpoint.address;
        if self.local().contains(to.ip()) {
            return self.open_local(from, to, wanted).await.map_err(NotOpened::Refused);
        }
        if wanted == Wanted::Bytes && self.functions.contains(to) {
            return Ok(Opened::Function);
        }
        let connection = self.node(endpoint).await.map_err(NotOpened::Unreachable)?;
        let asked = async {
            let mut stream = connection.open(StreamKind::TCP).await.map_err(|error| error.to_string())?;
            let head = Head { wanted, from, to };
            stream.write_all(&head.encode()).await.map_err(|error| error.to_string())?;
            let reply = Reply::read(&mut stream).await.map_err(|error| error.to_string())?;
            Ok((reply, stream))
        };
        let asked = tokio::time::timeout(NODE_REPLY, asked).await;
        match asked.unwrap_or_else(|_| Err(format!("no reply within {NODE_REPLY:?}"))) {
            Ok((Reply::Connected, stream)) => Ok(Opened::Stream(Box::new(stream))),
            Ok((Reply::Function, _)) => {
                self.functions.add(to);
                Ok(Opened::Function)
            }
            Ok((Reply::Refused, _)) => Err(NotOpened::Refused(format!("nothing listens at {to}"))),
            Err(reason) => {
                self.suspect(&endpoint.node);
                Err(NotOpened::Unreachable(format!("node {}: {reason}", endpoint.node)))
            }
        }
    }

    async fn open_local(&self, from: SocketAddr, to: SocketAddr, wanted: Wanted) -> Result<Opened, String> {
        match self.local().target(to) {
            Some(LocalTarget::Function(_)) if wanted == Wanted::Bytes => Ok(Opened::Function),
            Some(LocalTarget::Function(function)) => Ok(Opened::Stream(speak_http(function))),
            Some(LocalTarget::Process(process)) => process.connect(from, to, LOCAL_CONNECT).await.map(Opened::Stream),
            None => Err(format!("nothing listens at {to}")),
        }
    }

    /// Answers another node that opens a connection to a pod of this one, and carries its bytes until both sides are done.
    pub(crate) async fn take_stream(&self, mut stream: Stream) {
        let Ok(Ok(head)) = tokio::time::timeout(NODE_REPLY, Head::read(&mut stream)).await else { return };
        let opened = self.open_local(head.from, head.to, head.wanted).await;
        let reply = match &opened {
            Ok(Opened::Stream(_)) => Reply::Connected,
            Ok(Opened::Function) => Reply::Function,
            Err(_) => Reply::Refused,
        };
        if stream.write_u8(reply.encode()).await.is_err() {
            return;
        }
        match opened {
            Ok(Opened::Stream(mut pod)) => {
                if tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut pod, PIPE_BYTES, PIPE_BYTES)
                    .await
                    .is_err()
                {
                    stream.break_off();
                }
            }
            // Its bytes are not wanted; what it has sent already must not hold up the reply.
            Ok(Opened::Function) | Err(_) => {
                let _ = stream.shutdown().await;
                let _ = stream.read_u8().await;
            }
        }
    }
}

fn stream(opened: Result<Opened, NotOpened>) -> Result<ByteStream, NetworkError> {
    match opened {
        Ok(Opened::Stream(stream)) => Ok(stream),
        // It is only said to those who asked for processes.
        Ok(Opened::Function) => Err(NetworkError::Refused("a function takes no bytes".to_owned())),
        Err(NotOpened::Refused(reason) | NotOpened::Unreachable(reason)) => Err(NetworkError::Refused(reason)),
    }
}

/// A connection on which a function answers HTTP/1.1, or HTTP/2 where the other side begins with it.
fn speak_http(function: Arc<dyn HttpTarget>) -> ByteStream {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let service = service_fn(move |request: Request<Incoming>| {
        let function = Arc::clone(&function);
        async move {
            let mut request = request.map(|body| body.map_err(Into::into).boxed());
            strip_hop_by_hop(request.headers_mut());
            let response = function
                .call(request)
                .await
                .unwrap_or_else(|refused| text_response(http::StatusCode::SERVICE_UNAVAILABLE, refused.reason));
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    shoal_link::tasks::spawn_connection("function connection", async move {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().half_close(true);
        // Whoever broke it off has only itself to blame.
        let _ = builder.serve_connection(TokioIo::new(theirs), service).await;
    });
    Box::new(ours)
}
