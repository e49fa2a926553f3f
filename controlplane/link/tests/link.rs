//! Two endpoints on loopback: who is let in, who is not, and what runs over a connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Channel, Empty, Full};
use shoal_link::ca::{CertificateAuthority, Subject};
use shoal_link::http::Body;
use shoal_link::join::{JoinError, JoinReply, Newcomer, Wish};
use shoal_link::token::{JoinRole, JoinToken};
use shoal_link::{
    Accepted, Connection, Endpoint, Identity, IdentitySource, NODES, PeerIdentity, Pool, SERVERS, StreamKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> CertificateAuthority {
    shoal_link::install_crypto();
    CertificateAuthority::create("test").expect("a CA")
}

fn subject(name: &str, organization: &str) -> Subject {
    let identity = PeerIdentity { common_name: name.to_string(), organizations: vec![organization.to_string()] };
    Subject { identity, member: true, names: Vec::new(), addresses: Vec::new(), validity: HOUR }
}

fn identity(ca: &CertificateAuthority, name: &str, organization: &str) -> Identity {
    ca.issue(&subject(name, organization)).expect("an identity")
}

fn endpoint(identity: Identity) -> Endpoint {
    Endpoint::bind(LOOPBACK, &IdentitySource::new(identity)).expect("an endpoint")
}

fn server(ca: &CertificateAuthority) -> Endpoint {
    endpoint(identity(ca, "system:shoal:server:server-1", SERVERS))
}

fn worker(ca: &CertificateAuthority) -> Endpoint {
    endpoint(identity(ca, "system:node:worker-1", NODES))
}

async fn accept_peer(endpoint: &Endpoint) -> Connection {
    match endpoint.accept().await {
        Some(Accepted::Peer(connection)) => connection,
        _ => panic!("a peer was expected"),
    }
}

async fn accept_newcomer(endpoint: &Endpoint) -> Newcomer {
    match endpoint.accept().await {
        Some(Accepted::Newcomer(newcomer)) => newcomer,
        _ => panic!("a newcomer was expected"),
    }
}

/// Both ends of a connection that a worker dialled.
async fn pair(server: &Endpoint, worker: &Endpoint) -> (Connection, Connection) {
    let address = server.local_address().expect("an address");
    let (accepted, dialled) = tokio::join!(accept_peer(server), worker.connect(address));
    (accepted, dialled.expect("a connection"))
}

fn full(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Empty::new().map_err(|never| match never {}).boxed()).expect("a request")
}

/// Serves the HTTP streams of `connection` with `answer` until it is gone.
fn serve_http<F, R>(connection: Connection, answer: F)
where
    F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((kind, stream)) = connection.accept().await {
            assert_eq!(kind, StreamKind::HTTP);
            tokio::spawn(shoal_link::http::serve(stream, answer.clone()));
        }
    });
}

#[tokio::test]
async fn each_side_learns_who_the_other_is() {
    let ca = authority();
    let (server, worker) = (server(&ca), worker(&ca));
    let (accepted, dialled) = pair(&server, &worker).await;
    assert_eq!(accepted.peer().node_name(), Some("worker-1"));
    assert!(!accepted.peer().is_server());
    assert!(dialled.peer().is_server());
    assert_eq!(dialled.peer().common_name, "system:shoal:server:server-1");
}

#[tokio::test]
async fn both_sides_open_streams() {
    let ca = authority();
    let (server, worker) = (server(&ca), worker(&ca));
    let (accepted, dialled) = pair(&server, &worker).await;
    for (from, to) in [(&accepted, &dialled), (&dialled, &accepted)] {
        let mut ours = from.open(StreamKind(0x11)).await.expect("a stream");
        ours.write_all(b"ping").await.expect("written");
        let (kind, mut theirs) = to.accept().await.expect("a stream");
        assert_eq!(kind, StreamKind(0x11));
        let mut text = [0; 4];
        theirs.read_exact(&mut text).await.expect("read");
        theirs.write_all(&text).await.expect("written");
        theirs.shutdown().await.expect("ended");
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"ping");
    }
}

#[tokio::test]
async fn a_peer_of_another_ca_is_refused_on_both_sides() {
    let (ours, theirs) = (authority(), authority());
    let (server, stranger) = (server(&ours), worker(&theirs));
    let error = stranger.connect(server.local_address().expect("an address")).await.expect_err("refused");
    assert!(error.to_string().contains("refused the connection or is not of this cluster"), "{error}");
    // The endpoint goes on for those who belong.
    let friend = worker(&ours);
    pair(&server, &friend).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_the_dialling_side_is_told() {
    let ca = authority();
    let server = server(&ca);
    let worker = endpoint(expired(&ca));
    let error = worker.connect(server.local_address().expect("an address")).await.expect_err("refused");
    assert!(error.to_string().contains("our certificate has expired"), "{error}");
}

/// A worker's identity whose certificate was good for the year 2000 only.
fn expired(ca: &CertificateAuthority) -> Identity {
    let key = rcgen::KeyPair::from_pem(ca.key_pem()).expect("the CA's key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(ca.certificate_pem(), key).expect("the CA");
    let own = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["link.shoal".to_string()]).expect("a name");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:worker-1");
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let certificate = params.signed_by(&own, &issuer).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.serialize_der()).into();
    Identity::new(vec![certificate.der().clone(), ca.certificate().clone()], key, ca.certificate().clone())
}

#[tokio::test]
async fn a_pool_that_wants_servers_takes_no_worker_for_one() {
    let ca = authority();
    let (impostor, worker) = (worker(&ca), worker(&ca));
    let address = impostor.local_address().expect("an address").to_string();
    let error = Pool::new(worker).only(SERVERS).get(&address).await.expect_err("refused");
    assert!(error.to_string().contains("is not of \"shoal:servers\""), "{error}");
}

#[tokio::test]
async fn a_pool_redials_a_peer_that_started_again() {
    let ca = authority();
    let first = server(&ca);
    let address = first.local_address().expect("an address");
    let pool = Pool::new(worker(&ca));
    let before = pool.get(&address.to_string()).await.expect("a connection");
    first.close().await;
    drop(first);
    before.closed().await;

    let again = loop {
        let source = IdentitySource::new(identity(&ca, "system:shoal:server:server-1", SERVERS));
        match Endpoint::bind(address, &source) {
            Ok(endpoint) => break endpoint,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let after = loop {
        match pool.get(&address.to_string()).await {
            Ok(connection) => break connection,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(before.is_closed() && !after.is_closed());
    assert!(accept_peer(&again).await.peer().node_name().is_some());
    assert_eq!(pool.get(&address.to_string()).await.expect("the same").stable_id(), after.stable_id());
}

#[tokio::test]
async fn a_body_streams_both_ways_while_the_request_goes_on() {
    let ca = authority();
    let (server, worker) = (server(&ca), worker(&ca));
    let (accepted, dialled) = pair(&server, &worker).await;
    serve_http(dialled, |request| async move { Response::new(request.into_body()) });

    let (mut sender, body) = Channel::<Bytes, shoal_link::http::BoxError>::new(1);
    let request = Request::post("/echo").body(body.boxed()).expect("a request");
    sender.send_data(Bytes::from_static(b"one")).await.expect("sent");
    let response = shoal_link::http::request(&accepted, request).await.expect("a response");
    let mut echoed = response.into_body().into_data_stream();
    assert_eq!(echoed.next().await.expect("data").expect("whole"), "one");
    sender.send_data(Bytes::from_static(b"two")).await.expect("sent");
    assert_eq!(echoed.next().await.expect("data").expect("whole"), "two");
    drop(sender);
    assert!(echoed.next().await.is_none());
}

#[tokio::test]
async fn an_answer_is_whole_though_the_request_was_not_read_to_its_end() {
    let ca = authority();
    let (server, worker) = (server(&ca), worker(&ca));
    let (accepted, dialled) = pair(&server, &worker).await;
    serve_http(dialled, |_| async { Response::new(full("the whole answer")) });
    for _ in 0..100 {
        let (mut sender, body) = Channel::<Bytes, shoal_link::http::BoxError>::new(1);
        let request = Request::post("/exec").body(body.boxed()).expect("a request");
        let response = shoal_link::http::request(&accepted, request).await.expect("a response");
        // The writer goes on until it learns that nobody reads.
        let writing = async { while sender.send_data(Bytes::from_static(&[b'x'; 1024])).await.is_ok() {} };
        let (read, ()) = tokio::join!(response.into_body().collect(), writing);
        assert_eq!(read.expect("a body").to_bytes(), "the whole answer");
    }
}

#[tokio::test]
async fn dropping_a_response_ends_the_work_behind_it() {
    let ca = authority();
    let (server, worker) = (server(&ca), worker(&ca));
    let (accepted, dialled) = pair(&server, &worker).await;
    let over = CancellationToken::new();
    let guard = over.clone();
    serve_http(dialled, move |_| {
        let guard = guard.clone().drop_guard();
        async move {
            // A log that is followed and says nothing more: only the guard in the body notices the end.
            let quiet = futures_util::stream::once(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok(http_body::Frame::data(Bytes::new()))
            });
            Response::new(BodyExt::boxed(http_body_util::StreamBody::new(SyncStream(Box::pin(quiet)))))
        }
    });
    let response = shoal_link::http::request(&accepted, get("/quiet")).await.expect("a response");
    drop(response);
    over.cancelled().await;
}

/// A stream that is polled from one place only, and may therefore be called `Sync`.
struct SyncStream<S>(S);

impl<S: futures_util::Stream + Unpin> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let ca = authority();
    let (server, worker) = (server(&ca), worker(&ca));
    let (accepted, dialled) = pair(&server, &worker).await;
    serve_http(accepted, |request| async move {
        assert_eq!(request.method(), "GET");
        Response::new(full("hello"))
    });
    let answers = futures_util::future::join_all((0..200).map(|_| async {
        let response = shoal_link::http::request(&dialled, get("/api")).await.expect("a response");
        response.into_body().collect().await.expect("a body").to_bytes()
    }));
    assert!(answers.await.iter().all(|answer| answer == "hello"));
}

#[tokio::test]
async fn a_newcomer_gets_a_certificate_for_its_own_key() {
    let ca = Arc::new(authority());
    let server = server(&ca);
    let address = server.local_address().expect("an address").to_string();
    let token = JoinToken::create(JoinRole::Worker, ca.certificate());
    let wish =
        Wish { name: "worker-7".to_string(), addresses: Vec::new(), details: serde_json::json!({"kind": "worker"}) };
    let signer = ca.clone();
    let decide = async {
        accept_newcomer(&server)
            .await
            .answer(|request| async move {
                assert_eq!(request.details["kind"], "worker");
                let subject = subject(&format!("system:node:{}", request.name), NODES);
                let certificate = signer.sign(&request.request, &subject).map_err(|error| error.to_string())?;
                let ca = signer.certificate().to_vec();
                Ok(JoinReply {
                    certificate: certificate.to_vec(),
                    ca,
                    servers: vec!["a:1".to_string()],
                    grant: serde_json::Value::Null,
                })
            })
            .await;
    };
    let ((), joined) = tokio::join!(decide, shoal_link::join::join(&address, &token, &wish));
    let (identity, reply) = joined.expect("joined");
    assert_eq!(reply.servers, ["a:1"]);
    assert_eq!(identity.subject().expect("a subject").node_name(), Some("worker-7"));

    let worker = endpoint(identity);
    let (accepted, _dialled) = pair(&server, &worker).await;
    assert_eq!(accepted.peer().node_name(), Some("worker-7"));
}

#[tokio::test]
async fn a_refusal_reaches_the_newcomer_in_words() {
    let ca = authority();
    let server = server(&ca);
    let address = server.local_address().expect("an address").to_string();
    let token = JoinToken::create(JoinRole::Worker, ca.certificate());
    let wish = Wish { name: "worker-7".to_string(), addresses: Vec::new(), details: serde_json::Value::Null };
    let refuse =
        async { accept_newcomer(&server).await.answer(|_| async { Err("the token is unknown".to_string()) }).await };
    let ((), joined) = tokio::join!(refuse, shoal_link::join::join(&address, &token, &wish));
    match joined.map(drop) {
        Err(JoinError::Refused(reason)) => assert_eq!(reason, "the token is unknown"),
        other => panic!("a refusal was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_newcomer_shows_its_token_to_no_other_cluster_and_to_no_worker() {
    let (ours, theirs) = (authority(), authority());
    let token = JoinToken::create(JoinRole::Worker, ours.certificate());
    let wish = Wish { name: "worker-7".to_string(), addresses: Vec::new(), details: serde_json::Value::Null };
    for impostor in [server(&theirs), worker(&ours)] {
        let address = impostor.local_address().expect("an address").to_string();
        let joined = shoal_link::join::join(&address, &token, &wish).await;
        assert!(matches!(joined, Err(JoinError::Connect(_))));
    }
}

#[tokio::test]
async fn a_renewed_certificate_has_the_same_key_and_serves_new_handshakes() {
    let ca = authority();
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(&ca);
    let source = IdentitySource::new(identity(&ca, "system:node:worker-1", NODES));
    let worker = Endpoint::bind(LOOPBACK, &source).expect("an endpoint");
    let before = pair(&server, &worker).await.0.expires();

    let longer = Subject { validity: 3 * HOUR, ..subject("system:node:worker-1", NODES) };
    let sign = |request: Vec<u8>| {
        let signed =
            ca.sign(&request, &longer).map(|certificate| certificate.to_vec()).map_err(|error| error.to_string());
        async move { signed }
    };
    shoal_link::renew::renew(&source, directory.path(), "worker", sign).await.expect("renewed");
    assert!(pair(&server, &worker).await.0.expires() > before);
    let kept = Identity::load(directory.path(), "worker").expect("the files");
    assert_eq!(kept.key_pem(), source.current().key_pem());
    assert_eq!(kept.chain_pem(), source.current().chain_pem());

    let other = subject("system:node:worker-2", NODES);
    let stolen = |request: Vec<u8>| {
        let signed =
            ca.sign(&request, &other).map(|certificate| certificate.to_vec()).map_err(|error| error.to_string());
        async move { signed }
    };
    assert!(shoal_link::renew::renew(&source, directory.path(), "worker", stolen).await.is_err());
}

#[test]
fn keys_on_disk_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a folder");
    let identity = identity(&authority(), "shoal-admin", "system:masters");
    identity.save(directory.path(), "admin").expect("saved");
    let mode = std::fs::metadata(directory.path().join("admin.key")).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = Identity::load(directory.path(), "admin").expect("loaded");
    assert_eq!(loaded.subject(), identity.subject());
    std::fs::write(directory.path().join("admin.key"), "nonsense").expect("written");
    let error = Identity::load(directory.path(), "admin").map(drop).expect_err("damaged");
    assert!(error.to_string().ends_with("it holds no private key"), "{error}");
}
