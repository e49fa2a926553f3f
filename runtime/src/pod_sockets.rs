//! A pod's sockets: what its guests listen at, connect to and look up, by the pods' network and the pod's policy.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use shoal_engine::{Accepted, ByteStream, Datagrams, Listener, SocketFailure, Sockets};
use shoal_network::{Lookup, NetworkError, Protocol, StreamPort, lookups};
use tokio::net::TcpStream;

use crate::host_ports::{HostNetwork, Opened};
use crate::limits::OUTSIDE_CONNECT;
use crate::outbound::PodOutbound;
use crate::pod_datagrams::PodDatagrams;
use crate::reach::{Asker, Learned, Reach, reach};
use crate::world_names::NotFound;

/// The sockets of one container. Cheap to clone.
#[derive(Clone)]
pub struct PodSockets {
    outbound: Arc<PodOutbound>,
    /// In the pods' network.
    address: IpAddr,
    host: Option<HostNetwork>,
    learned: Arc<Mutex<Learned>>,
}

impl PodSockets {
    /// Those of a container of the pod with this address, and with the node's network if it shares that.
    pub fn new(outbound: Arc<PodOutbound>, address: IpAddr, host: Option<HostNetwork>) -> PodSockets {
        PodSockets { outbound, address, host, learned: Arc::default() }
    }

    /// Where an address that may be the node's own leads if the pod itself is there, as `is_own` says.
    pub fn at_home(&self, to: SocketAddr, is_own: impl Fn(SocketAddr) -> bool) -> SocketAddr {
        let home = SocketAddr::new(self.address, to.port());
        let is_host = self.host.as_ref().is_some_and(|host| host.address == to.ip());
        if is_host && is_own(home) { home } else { to }
    }

    /// What the container may reach, and how.
    pub fn outbound(&self) -> &Arc<PodOutbound> {
        &self.outbound
    }

    /// Where a socket leads; none is denied.
    pub fn reach(&self, scheme: &str, to: SocketAddr) -> Option<Reach> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let asker = Asker {
            address: self.address,
            namespace: &self.outbound.namespace,
            allowed: &self.outbound.allowed,
            learned: &learned,
        };
        reach(&self.outbound.network.table(), &asker, scheme, to)
    }

    fn learn(&self, name: &str, addresses: &[IpAddr]) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).learn(name, addresses);
    }

    async fn open(self, from: u16, to: SocketAddr) -> Result<ByteStream, SocketFailure> {
        let from = SocketAddr::new(self.address, from);
        let network = &self.outbound.network;
        let to = self.at_home(to, |home| network.local().target(home).is_some());
        match self.reach("tcp", to).ok_or(SocketFailure::Denied)? {
            Reach::Service(name) => {
                let stream = network.connect_service(&name, to.port(), from).await;
                stream.map(|stream| Box::new(stream) as ByteStream).map_err(|error| failure(&error))
            }
            Reach::Pod => {
                let stream = network.connect_pod(from, to).await;
                stream.map(|stream| Box::new(stream) as ByteStream).map_err(|error| failure(&error))
            }
            Reach::Outside => {
                let connected = tokio::time::timeout(OUTSIDE_CONNECT, TcpStream::connect(to)).await;
                let stream = connected.map_err(|_| SocketFailure::Timeout)?.map_err(|error| of_system(&error))?;
                // What is small is waited for: do not hold the last segment back.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
        }
    }

    async fn find(self, name: String) -> Result<Vec<IpAddr>, SocketFailure> {
        let table = self.outbound.network.table();
        let mut outcome = SocketFailure::NameUnknown;
        for lookup in lookups(&table, &self.outbound.names, &name) {
            match lookup {
                Lookup::Found(addresses) => {
                    self.learn(&name, &addresses);
                    return Ok(addresses);
                }
                Lookup::Ask(host) if self.outbound.allowed.name(&host) => {
                    match self.outbound.world.look_up(&host).await {
                        Ok(mut addresses) => {
                            // Nobody outside may say that a name which is allowed is a place within.
                            addresses.retain(|ip| table.service_at(*ip).is_none() && !table.is_pod(*ip));
                            if !addresses.is_empty() {
                                self.learn(&host, &addresses);
                                return Ok(addresses);
                            }
                        }
                        Err(NotFound::Unknown) => outcome = SocketFailure::NameUnknown,
                        Err(NotFound::NoAnswer) => outcome = SocketFailure::NoResolver,
                    }
                }
                // A name of one label is a Service's or nobody's.
                Lookup::Ask(host) if host.contains('.') && outcome == SocketFailure::NameUnknown => {
                    outcome = SocketFailure::Denied;
                }
                Lookup::Ask(_) => {}
            }
        }
        Err(outcome)
    }
}

impl Sockets for PodSockets {
    fn address(&self) -> IpAddr {
        self.host.as_ref().map_or(self.address, |host| host.address)
    }

    fn listen(&self, port: u16, only_own: bool) -> Result<Box<dyn Listener>, SocketFailure> {
        let address = SocketAddr::new(self.address, port);
        let of_node = match self.host.as_ref().filter(|_| !only_own) {
            Some(host) => Some(host.open(Protocol::Tcp, port).ok_or(SocketFailure::PortTaken)?),
            None => None,
        };
        let port = self.outbound.network.local().listen_for_streams(address, only_own);
        Ok(Box::new(Listening { port: port.ok_or(SocketFailure::PortTaken)?, _of_node: of_node }))
    }

    fn connect(&self, from: u16, to: SocketAddr) -> BoxFuture<'static, Result<ByteStream, SocketFailure>> {
        Box::pin(self.clone().open(from, to))
    }

    fn bind(&self, port: u16) -> Result<Box<dyn Datagrams>, SocketFailure> {
        // Who wants any port asks, and is not asked.
        let of_node = match self.host.as_ref().filter(|_| port != 0) {
            Some(host) => Some(host.open(Protocol::Udp, port).ok_or(SocketFailure::PortTaken)?),
            None => None,
        };
        let port = self.outbound.network.local().bind(SocketAddr::new(self.address, port));
        Ok(Box::new(PodDatagrams::new(self.clone(), port.ok_or(SocketFailure::PortTaken)?, of_node)))
    }

    fn look_up(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, SocketFailure>> {
        Box::pin(self.clone().find(name))
    }
}

struct Listening {
    port: StreamPort,
    _of_node: Option<Opened>,
}

impl Listener for Listening {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Accepted>> {
        let accepted = self.port.poll_accept(context);
        accepted.map(|incoming| incoming.map(|i| Accepted { stream: Box::new(i.stream), from: i.from }))
    }
}

fn failure(error: &NetworkError) -> SocketFailure {
    tracing::debug!(%error, "a pod's connection found nobody");
    SocketFailure::Refused
}

/// What the system said of a socket to the outside.
pub fn of_system(error: &std::io::Error) -> SocketFailure {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => SocketFailure::Refused,
        std::io::ErrorKind::TimedOut => SocketFailure::Timeout,
        std::io::ErrorKind::PermissionDenied => SocketFailure::Denied,
        _ => SocketFailure::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_network::{Endpoint, Network, PodNames, Service, ServiceName, ServicePort, Table};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::outbound::Outside;
    use crate::outbound_policy::AllowedHosts;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn pod(network: &Arc<Network>, own: &str, allowed: &str) -> PodSockets {
        let own = address(own).ip();
        network.local().add(own);
        let outbound = PodOutbound {
            namespace: "shop".to_owned(),
            address: Some(own),
            allowed: AllowedHosts::parse(allowed),
            network: Arc::clone(network),
            outside: Outside::default(),
            names: PodNames { search: vec!["shop.svc.cluster.local".to_owned()], ndots: 5, hosts: Vec::new() },
            world: crate::world_names::WorldNames::default(),
        };
        PodSockets::new(Arc::new(outbound), own, None)
    }

    /// A Service at 10.96.0.7 whose ports, of both protocols, lead to 10.64.0.2:5300.
    fn table() -> Table {
        let endpoint = Endpoint { address: address("10.64.0.2:5300"), node: "w1".to_owned(), ready: true };
        let port = |protocol| ServicePort {
            name: None,
            protocol,
            port: 53,
            node_port: None,
            endpoints: vec![endpoint.clone()],
        };
        let service = Service {
            name: ServiceName::new("shop", "names"),
            addresses: vec![address("10.96.0.7:0").ip()],
            ports: vec![port(Protocol::Tcp), port(Protocol::Udp)],
            members: Vec::new(),
            external_name: None,
        };
        Table::new(vec![service], [])
    }

    async fn receive(port: &dyn Datagrams) -> (SocketAddr, Bytes) {
        let datagram = std::future::poll_fn(|context| port.poll_receive(context)).await;
        (datagram.from, datagram.bytes)
    }

    #[tokio::test]
    async fn a_service_is_found_connected_to_and_answers_under_its_own_address() {
        let network = crate::test_network::network();
        network.set_table(table());
        let (server, client) = (pod(&network, "10.64.0.2:0", ""), pod(&network, "10.64.0.3:0", ""));
        let service = address("10.96.0.7:53");
        assert_eq!(client.look_up("names".to_owned()).await, Ok(vec![service.ip()]));
        assert_eq!(client.look_up("nobody".to_owned()).await, Err(SocketFailure::NameUnknown));

        assert_eq!(client.connect(40_000, service).await.err(), Some(SocketFailure::Refused));
        let mut listener = server.listen(5_300, false).expect("a port");
        assert_eq!(server.listen(5_300, false).err(), Some(SocketFailure::PortTaken));
        let mut stream = client.connect(40_000, service).await.expect("it listens");
        let accepted = std::future::poll_fn(|context| listener.poll_accept(context)).await.expect("a connection");
        assert_eq!(accepted.from, address("10.64.0.3:40000"));
        stream.write_all(b"hello").await.expect("it is open");
        drop(stream);
        let (mut heard, mut stream) = (String::new(), accepted.stream);
        stream.read_to_string(&mut heard).await.expect("an end");
        assert_eq!(heard, "hello");

        let (asked, asking) = (server.bind(5_300).expect("a port"), client.bind(0).expect("a port"));
        asking.send(service, Bytes::from_static(b"who?")).expect("it may");
        let (from, bytes) = receive(asked.as_ref()).await;
        assert_eq!((from, &bytes[..]), (SocketAddr::new(client.address(), asking.port()), &b"who?"[..]));
        asked.send(from, Bytes::from_static(b"I")).expect("it was asked");
        assert_eq!(receive(asking.as_ref()).await, (service, Bytes::from_static(b"I")));
    }

    #[tokio::test]
    async fn the_outside_is_reached_where_the_annotation_names_it() {
        let network = crate::test_network::network();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let outside = listener.local_addr().expect("an address");
        let socket = tokio::net::UdpSocket::bind(outside).await.expect("a socket");
        let denied = pod(&network, "10.64.0.2:0", "example.com https://127.0.0.1");
        assert_eq!(denied.connect(40_000, outside).await.err(), Some(SocketFailure::Denied));
        let port = denied.bind(0).expect("a port");
        assert_eq!(port.send(outside, Bytes::new()), Err(SocketFailure::Denied));
        assert_eq!(denied.look_up("www.example.net".to_owned()).await, Err(SocketFailure::Denied));

        let allowed = pod(&network, "10.64.0.3:0", &format!("127.0.0.1:{}", outside.port()));
        let mut stream = allowed.connect(40_000, outside).await.expect("it listens");
        let (mut accepted, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"hello").await.expect("it is open");
        stream.shutdown().await.expect("an end");
        let mut heard = String::new();
        accepted.read_to_string(&mut heard).await.expect("an end");
        assert_eq!(heard, "hello");

        let port = allowed.bind(0).expect("a port");
        port.send(outside, Bytes::from_static(b"who?")).expect("it may");
        let mut buffer = [0; 16];
        let (length, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
        assert_eq!(&buffer[..length], b"who?");
        // Nobody else is let in.
        let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let own = SocketAddr::new(address("127.0.0.1:0").ip(), from.port());
        stranger.send_to(b"let me in", own).await.expect("it is sent");
        socket.send_to(b"I", own).await.expect("it is sent");
        assert_eq!(receive(port.as_ref()).await, (outside, Bytes::from_static(b"I")));
    }
}
