//! What a process serves by TCP, counted, so that it can be drained: no new connection, and told when the last one has ended.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::grant::{Accepted, ByteStream, Datagrams, Listener, SocketFailure, Sockets};

/// The ports and connections of one process.
pub(crate) struct Service {
    ports: Mutex<Ports>,
    /// How many connections others have opened that the guest has not ended.
    connections: Arc<watch::Sender<usize>>,
}

#[derive(Default)]
struct Ports {
    is_stopping: bool,
    open: Vec<Weak<Mutex<Port>>>,
}

/// A port that the guest listens at.
struct Port {
    /// None when it takes no more.
    listener: Option<Box<dyn Listener>>,
    /// Those who came before it was closed.
    waiting: VecDeque<Accepted>,
    /// The guest, where it waits for somebody.
    guest: Option<Waker>,
}

impl Service {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ports: Mutex::default(), connections: Arc::new(watch::Sender::new(0)) })
    }

    /// `sockets` as the process sees them.
    pub(crate) fn of(self: &Arc<Self>, sockets: Arc<dyn Sockets>) -> Arc<dyn Sockets> {
        Arc::new(Counting { inner: sockets, service: Arc::clone(self) })
    }

    /// Closes its ports. Who was let in before stays; so does who waits to be accepted.
    pub(crate) fn stop(&self) {
        let mut ports = lock(&self.ports);
        ports.is_stopping = true;
        for port in ports.open.drain(..).filter_map(|port| port.upgrade()) {
            lock(&port).close(&self.connections);
        }
    }

    /// Waits until nobody is connected.
    pub(crate) fn idle(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut connections = self.connections.subscribe();
        async move {
            // The sender gone means that nobody is connected.
            let _ = connections.wait_for(|count| *count == 0).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port {
    fn close(&mut self, connections: &Arc<watch::Sender<usize>>) {
        let Some(mut listener) = self.listener.take() else { return };
        while let Poll::Ready(Some(accepted)) = listener.poll_accept(&mut Context::from_waker(Waker::noop())) {
            self.waiting.push_back(counted(accepted, connections));
        }
        if let Some(guest) = self.guest.take().filter(|_| !self.waiting.is_empty()) {
            guest.wake();
        }
    }
}

fn counted(accepted: Accepted, connections: &Arc<watch::Sender<usize>>) -> Accepted {
    connections.send_modify(|count| *count += 1);
    Accepted {
        stream: Box::new(Connection { stream: accepted.stream, connections: Arc::clone(connections) }),
        from: accepted.from,
    }
}

struct Counting {
    inner: Arc<dyn Sockets>,
    service: Arc<Service>,
}

impl Sockets for Counting {
    fn address(&self) -> IpAddr {
        self.inner.address()
    }

    fn listen(&self, port: u16, only_own: bool) -> Result<Box<dyn Listener>, SocketFailure> {
        let mut ports = lock(&self.service.ports);
        if ports.is_stopping {
            return Err(SocketFailure::Denied);
        }
        let listener = Some(self.inner.listen(port, only_own)?);
        let port = Arc::new(Mutex::new(Port { listener, waiting: VecDeque::new(), guest: None }));
        ports.open.retain(|port| port.strong_count() > 0);
        ports.open.push(Arc::downgrade(&port));
        Ok(Box::new(Listening { port, connections: Arc::clone(&self.service.connections) }))
    }

    fn connect(&self, from: u16, to: SocketAddr) -> BoxFuture<'static, Result<ByteStream, SocketFailure>> {
        self.inner.connect(from, to)
    }

    fn bind(&self, port: u16) -> Result<Box<dyn Datagrams>, SocketFailure> {
        self.inner.bind(port)
    }

    fn look_up(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, SocketFailure>> {
        self.inner.look_up(name)
    }
}

struct Listening {
    port: Arc<Mutex<Port>>,
    connections: Arc<watch::Sender<usize>>,
}

impl Listener for Listening {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Accepted>> {
        let mut port = lock(&self.port);
        if let Some(accepted) = port.waiting.pop_front() {
            return Poll::Ready(Some(accepted));
        }
        port.guest = Some(context.waker().clone());
        // A port that is closed says nothing more: a guest that was told of an error might ask again and again.
        let Some(listener) = &mut port.listener else { return Poll::Pending };
        listener.poll_accept(context).map(|accepted| accepted.map(|accepted| counted(accepted, &self.connections)))
    }
}

/// A connection that counts until the guest lets it go.
struct Connection {
    stream: ByteStream,
    connections: Arc<watch::Sender<usize>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.send_modify(|count| *count -= 1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
