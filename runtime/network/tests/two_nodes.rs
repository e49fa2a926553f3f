//! Two nodes over QUIC: a request goes to the other node's pod, and round a pod that refuses it.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use shoal_link::ca::{CertificateAuthority, Subject};
use shoal_link::{Accepted, Endpoint as Link, IdentitySource, NODES, PeerIdentity, Pool};
use shoal_network::{
    Body, Endpoint, HttpTarget, LocalTarget, Network, NetworkError, Refused, Service, ServiceName, ServicePort, Table,
    serve_peer,
};

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
    let validity = std::time::Duration::from_secs(600);
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
    let port = ServicePort { name: None, port: 80, node_port: Some(30_080), endpoints };
    let service = Service { name: ServiceName::new("default", "web"), addresses: Vec::new(), ports: vec![port] };
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
