//! Two nodes over QUIC: requests, connections and datagrams go to the other node's pods, and requests round a pod that
//! refuses them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use shoal_link::ca::{CertificateAuthority, Subject};
use shoal_link::{Accepted, Endpoint as Link, IdentitySource, NODES, PeerIdentity, Pool};
use shoal_network::{
    Body, Datagram, Door, Endpoint, HttpTarget, Listeners, LocalTarget, Network, NetworkError, NodeNetwork, Protocol,
    Refused, Service, ServiceName, ServicePort, StreamPort, Table, serve_peer,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Answers with its name and the request's body, or refuses everything.
struct Pod {
    name: &'static str,
    refuses: bool,
}

impl HttpTarget for Pod {
    fn call(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, Refused>> {
        Box::pin(async move {
            if self.refuses {
                return Err(Refused::new(request, "stopping"));
            }
            let host = request.headers()["host"].to_str().expect("text").to_owned();
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            Ok(Response::new(text(format!("{} {host} {}", self.name, String::from_utf8_lossy(&body)))))
        })
    }
}

fn text(text: impl Into<bytes::Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

fn node(ca: &CertificateAuthority, name: &str) -> (Arc<Network>, Link) {
    let identity = PeerIdentity { common_name: format!("system:node:{name}"), organizations: vec![NODES.to_owned()] };
    let validity = Duration::from_secs(600);
    let subject = Subject { identity, member: true, names: Vec::new(), addresses: Vec::new(), validity };
    let source = IdentitySource::new(ca.issue(&subject).expect("an identity"));
    let link = Link::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &source).expect("a socket");
    let network = Network::new(Pool::new(link.clone()));
    let (accepting, serving) = (link.clone(), Arc::clone(&network));
    tokio::spawn(async move {
        while let Some(Accepted::Peer(connection)) = accepting.accept().await {
            tokio::spawn(serve_peer(Arc::clone(&serving), connection));
        }
    });
    (network, link)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn table(other: &Link, endpoints: &[(&str, &str)]) -> Table {
    let endpoints = endpoints
        .iter()
        .map(|(pod, node)| Endpoint { address: address(pod), node: (*node).to_owned(), ready: true })
        .collect();
    let port = ServicePort { name: None, protocol: Protocol::Tcp, port: 80, node_port: Some(30_080), endpoints };
    let service = service("web", port);
    let link = other.local_address().expect("an address").to_string();
    Table::new(vec![service], [("w2".to_owned(), link), ("dead".to_owned(), "127.0.0.1:1".to_owned())])
}

async fn ask(network: &Network, body: &str) -> Result<String, NetworkError> {
    let request = Request::post("http://web/x").body(text(body.to_owned())).expect("a request");
    let response = network.call_service(&ServiceName::new("default", "web"), 80, request).await?;
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_request_finds_a_pod_that_takes_it() {
    shoal_link::install_crypto();
    let ca = CertificateAuthority::create("test").expect("a CA");
    let (one, _one_link) = node(&ca, "w1");
    let (two, two_link) = node(&ca, "w2");
    two.local().listen(address("10.64.1.2:80"), &LocalTarget::Function(Arc::new(Pod { name: "far", refuses: false })));
    two.local()
        .listen(address("10.64.1.3:80"), &LocalTarget::Function(Arc::new(Pod { name: "stopping", refuses: true })));
    one.local().listen(
        address("10.64.0.2:80"),
        &LocalTarget::Function(Arc::new(Pod { name: "near but stopping", refuses: true })),
    );

    one.set_table(table(&two_link, &[("10.64.1.2:80", "w2")]));
    assert_eq!(ask(&one, "hello").await.expect("an answer"), "far web hello");

    // Whichever it tries first, nobody but the one that takes it sees the request, so that even a POST is sent on.
    one.set_table(table(
        &two_link,
        &[("10.64.1.2:80", "w2"), ("10.64.1.3:80", "w2"), ("10.64.0.2:80", "w1"), ("10.64.9.9:80", "dead")],
    ));
    for _ in 0..8 {
        assert_eq!(ask(&one, "hello").await.expect("an answer"), "far web hello");
    }

    one.set_table(table(&two_link, &[("10.64.1.3:80", "w2")]));
    assert!(matches!(ask(&one, "hello").await, Err(NetworkError::Refused(reason)) if reason == "stopping"));
    one.set_table(table(&two_link, &[]));
    assert!(matches!(ask(&one, "hello").await, Err(NetworkError::NoEndpoint(_))));
}

fn service(name: &str, port: ServicePort) -> Service {
    Service {
        name: ServiceName::new("default", name),
        addresses: Vec::new(),
        ports: vec![port],
        members: Vec::new(),
        external_name: None,
    }
}

/// Says everything again that it hears, after a greeting, on every connection.
async fn repeat(mut port: StreamPort) {
    while let Some(mut incoming) = std::future::poll_fn(|context| port.poll_accept(context)).await {
        tokio::spawn(async move {
            let greeting = format!("{} to {}\n", incoming.from.ip(), incoming.to);
            incoming.stream.write_all(greeting.as_bytes()).await.expect("a listener");
            let (mut read, mut write) = tokio::io::split(incoming.stream);
            tokio::io::copy(&mut read, &mut write).await.expect("a caller");
            write.shutdown().await.expect("an end");
        });
    }
}

/// Sends `said`, ends its side, and hears the other out.
async fn converse(stream: impl AsyncRead + AsyncWrite, said: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut heard = Vec::new();
    let saying = async {
        write.write_all(said).await.expect("a listener");
        write.shutdown().await.expect("an end");
    };
    let (_, read) = tokio::join!(saying, read.read_to_end(&mut heard));
    read.expect("an end");
    heard
}

/// Sends a request, and hears the other out before it ends its side.
async fn request(mut stream: TcpStream, asked: &[u8]) -> String {
    stream.write_all(asked).await.expect("a listener");
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.expect("an answer");
    heard
}

#[tokio::test]
async fn a_connection_carries_bytes_both_ways_and_each_side_ends_for_itself() {
    shoal_link::install_crypto();
    let ca = CertificateAuthority::create("test").expect("a CA");
    let (one, _one_link) = node(&ca, "w1");
    let (two, two_link) = node(&ca, "w2");
    one.local().add(address("10.64.0.2:0").ip());
    let near = one.local().listen_for_streams(address("10.64.0.2:7"), false).expect("a port");
    let far = two.local().listen_for_streams(address("10.64.1.2:7"), false).expect("a port");
    let own = two.local().listen_for_streams(address("10.64.1.2:8"), true).expect("a port");
    for port in [near, far, own] {
        tokio::spawn(repeat(port));
    }
    two.local().listen(address("10.64.1.3:80"), &LocalTarget::Function(Arc::new(Pod { name: "far", refuses: false })));
    one.set_table(table(&two_link, &[("10.64.1.2:7", "w2"), ("10.64.1.3:80", "w2"), ("10.64.1.2:8", "w2")]));
    let from = address("10.64.0.9:1000");

    let long = vec![7; 3 << 20];
    for to in ["10.64.0.2:7", "10.64.1.2:7"] {
        let stream = one.connect_pod(from, address(to)).await.expect("it listens");
        let heard = converse(stream, &long).await;
        let greeting = format!("10.64.0.9 to {to}\n");
        assert!(heard.starts_with(greeting.as_bytes()));
        assert_eq!(heard.len(), greeting.len() + long.len());
    }
    // A function speaks HTTP to whoever connects.
    let stream = one.connect_pod(from, address("10.64.1.3:80")).await.expect("it takes connections");
    let asked = b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    let heard = String::from_utf8(converse(stream, asked).await).expect("a text");
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("far web hi"), "{heard}");
    // Nothing listens, a port that is its pod's own, a node that is dead.
    for to in ["10.64.0.2:9", "10.64.1.2:9", "10.64.1.2:8", "10.64.9.9:7"] {
        assert!(matches!(one.connect_pod(from, address(to)).await, Err(NetworkError::Refused(_))), "{to}");
    }
}

#[tokio::test]
async fn a_node_port_carries_what_is_behind_it() {
    shoal_link::install_crypto();
    let ca = CertificateAuthority::create("test").expect("a CA");
    let (one, one_link) = node(&ca, "w1");
    let (two, two_link) = node(&ca, "w2");
    tokio::spawn(repeat(two.local().listen_for_streams(address("10.64.1.2:7"), false).expect("a port")));
    two.local().listen(address("10.64.1.3:80"), &LocalTarget::Function(Arc::new(Pod { name: "far", refuses: false })));
    one.set_gateway(address("10.64.0.1:0").ip());
    two.set_gateway(address("10.64.1.1:0").ip());
    let mut socket = two.local().bind(address("10.64.1.2:7")).expect("a port");
    let answering = Arc::clone(&two);
    tokio::spawn(async move {
        while let Some(asked) = socket.receive().await {
            answering.send_datagram(Datagram { from: asked.to, to: asked.from, bytes: asked.bytes });
        }
    });

    let [requests, bytes, datagrams, nobody, direct] = free_ports();
    let port = |protocol, node_port, pod: &[&str]| ServicePort {
        name: None,
        protocol,
        port: 80,
        node_port: Some(node_port),
        endpoints: pod.iter().map(|pod| Endpoint { address: address(pod), node: "w2".into(), ready: true }).collect(),
    };
    let services = || {
        vec![
            service("requests", port(Protocol::Tcp, requests, &["10.64.1.3:80"])),
            service("bytes", port(Protocol::Tcp, bytes, &["10.64.1.2:7"])),
            service("datagrams", port(Protocol::Udp, datagrams, &["10.64.1.2:7"])),
            service("nobody", port(Protocol::Tcp, nobody, &[])),
        ]
    };
    let network = |node: &str, first, last| NodeNetwork {
        node: node.into(),
        first: address(first).ip(),
        last: address(last).ip(),
    };
    let whole = |node: &str, link: &Link| {
        let links = [(node.to_owned(), link.local_address().expect("an address").to_string())];
        Table::new(services(), links).with_networks([
            network("w1", "10.64.0.0:0", "10.64.0.255:0"),
            network("w2", "10.64.1.0:0", "10.64.1.255:0"),
        ])
    };
    one.set_table(whole("w2", &two_link));
    two.set_table(whole("w1", &one_link));
    let localhost = address("127.0.0.1:0").ip();
    let mut ports = Listeners::new(Arc::clone(&one), tokio::runtime::Handle::current());
    let of_service = |(protocol, port)| ((protocol, SocketAddr::new(localhost, port)), Door::NodePort(port));
    let mut wanted: BTreeMap<_, _> = one.table().node_ports().into_iter().map(of_service).collect();
    let direct = SocketAddr::new(localhost, direct);
    wanted.insert((Protocol::Tcp, direct), Door::Pod(address("10.64.1.3:80")));
    assert!(ports.keep(&wanted).await.is_empty());

    let connect = |port| TcpStream::connect((localhost, port));
    // Twice: the second one knows what is there.
    for _ in 0..2 {
        let heard = converse(connect(bytes).await.expect("it listens"), b"over").await;
        assert_eq!(String::from_utf8_lossy(&heard), "127.0.0.1 to 10.64.1.2:7\nover");
        let asked = b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        let heard = request(connect(requests).await.expect("it listens"), asked).await;
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("far web hi"), "{heard}");
    }
    let asked = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let heard = request(TcpStream::connect(direct).await.expect("it listens"), asked).await;
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("far web "), "{heard}");
    // The same port for another pod, and for its datagrams too.
    wanted.insert((Protocol::Tcp, direct), Door::Pod(address("10.64.1.2:7")));
    wanted.insert((Protocol::Udp, direct), Door::Pod(address("10.64.1.2:7")));
    assert!(ports.keep(&wanted).await.is_empty());
    let heard = converse(TcpStream::connect(direct).await.expect("it listens"), b"over").await;
    assert_eq!(String::from_utf8_lossy(&heard), "127.0.0.1 to 10.64.1.2:7\nover");
    let heard = request(connect(nobody).await.expect("it listens"), asked).await;
    assert!(heard.starts_with("HTTP/1.1 503 "), "{heard}");

    let asker = UdpSocket::bind((localhost, 0)).await.expect("a socket");
    let large = vec![7; 9_000];
    for (port, said) in [(datagrams, &b"over"[..]), (datagrams, &large), (direct.port(), b"again")] {
        asker.connect((localhost, port)).await.expect("an address");
        // The first one may be lost where the way to the other node is not open yet.
        let mut heard = vec![0; 10_000];
        loop {
            asker.send(said).await.expect("it is sent");
            let answer = tokio::time::timeout(Duration::from_secs(1), asker.recv(&mut heard)).await;
            if let Ok(Ok(length)) = answer
                && heard[..length] == *said
            {
                break;
            }
        }
    }
    wanted.retain(|(_, address), _| *address != direct);
    assert!(ports.keep(&wanted).await.is_empty());
    assert!(TcpStream::connect(direct).await.is_err(), "a listener that is not wanted is closed");
}

/// Ports that nothing has at the moment.
fn free_ports() -> [u16; 5] {
    let listeners = [(); 5].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}
