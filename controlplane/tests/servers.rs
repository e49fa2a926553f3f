//! Servers in one process, on loopback: the first one's start and restart, three that form a cluster, and who is let in.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace, Node, Pod, PodSpec};
use serde_json::{Value, json};
use sha2::Digest;
use shoal_client::{Client, Kubeconfig, ListOptions, TlsTransport};
use shoal_controlplane::{Join, JoinRole, Server, ServerConfig};
use shoal_link::join::Wish;
use shoal_link::{Endpoint, IdentitySource, Pool, SERVERS, StreamKind};

/// Nothing here takes as long; it keeps a test that waits for something that never comes from waiting for ever.
const DEADLINE: Duration = Duration::from_secs(60);

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn eventually<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not come about"))
}

fn config(name: &str, directory: &Path) -> ServerConfig {
    let mut config = ServerConfig::new(name, directory.join(name));
    config.api_address = ANY;
    config.link_address = ANY;
    config
}

fn joining(name: &str, directory: &Path, first: &Server) -> ServerConfig {
    let token = first.first_token(JoinRole::Server).expect("a token");
    ServerConfig {
        join: Some(Join { addresses: vec![first.link_address().to_string()], token }),
        ..config(name, directory)
    }
}

async fn start(config: ServerConfig) -> Server {
    let server = eventually("a start", Server::start(config)).await.expect("a server");
    eventually("readiness", server.ready()).await;
    server
}

fn admin(directory: &Path, name: &str) -> Client {
    let kubeconfig = Kubeconfig::load(&directory.join(name).join("admin.kubeconfig")).expect("a kubeconfig");
    Client::new(Arc::new(TlsTransport::new(&kubeconfig).expect("a transport")))
}

async fn namespaces(client: &Client) -> Vec<String> {
    let listed = client.list::<Namespace>("", &ListOptions::default()).await.expect("a list");
    listed.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect()
}

fn config_map(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_string());
    object.metadata.namespace = Some("default".to_string());
    object
}

async fn worker(server: &Server, name: &str) -> (Arc<IdentitySource>, Endpoint) {
    let token = server.create_token(JoinRole::Worker, None).await.expect("a token");
    let wish = Wish { name: name.to_string(), addresses: Vec::new(), details: Value::Null };
    let (identity, _) = shoal_link::join::join(server.link_address(), &token, &wish).await.expect("joined");
    let source = IdentitySource::new(identity);
    let endpoint = Endpoint::bind(ANY, &source).expect("an endpoint");
    (source, endpoint)
}

async fn json(response: http::Response<shoal_link::http::Body>) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_server_makes_a_cluster_and_finds_it_again() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = start(config("server-1", directory.path())).await;
    let client = admin(directory.path(), "server-1");
    assert_eq!(namespaces(&client).await, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    client.create(&config_map("kept")).await.expect("created");
    let (address, token) = (server.api_address().to_string(), server.first_token(JoinRole::Worker));
    server.shutdown().await;

    let server = start(config("server-1", directory.path())).await;
    assert_eq!(server.api_address(), address);
    assert_eq!(server.first_token(JoinRole::Worker), token);
    // The former kubeconfig is as good as the new one.
    client.get::<ConfigMap>("default", "kept").await.expect("kept");
    admin(directory.path(), "server-1").get::<ConfigMap>("default", "kept").await.expect("kept");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_answer_alike_and_outlive_one_of_them() {
    let directory = tempfile::tempdir().expect("a folder");
    let first = start(config("server-1", directory.path())).await;
    let second = start(joining("server-2", directory.path(), &first)).await;
    let third = start(joining("server-3", directory.path(), &first)).await;
    let names = ["server-1", "server-2", "server-3"];
    let clients = names.map(|name| admin(directory.path(), name));
    for (client, name) in clients.iter().zip(names) {
        assert_eq!(namespaces(client).await, ["default", "kube-node-lease", "kube-public", "kube-system"]);
        client.create(&config_map(name)).await.expect("created");
    }
    for client in &clients {
        let listed = client.list::<ConfigMap>("default", &ListOptions::default()).await.expect("a list");
        let listed: Vec<String> = listed.items.into_iter().filter_map(|object| object.metadata.name).collect();
        assert!(names.iter().all(|name| listed.iter().any(|has| has == name)), "{listed:?}");
    }

    // The first one leads, having made the cluster: without it the other two go on, and it finds them again.
    first.shutdown().await;
    eventually("a write without the first server", async {
        while clients[1].create(&config_map("later")).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let first = start(config("server-1", directory.path())).await;
    clients[0].get::<ConfigMap>("default", "later").await.expect("caught up");
    let mut members: Vec<String> = members(&clients[0]).await;
    members.sort();
    assert_eq!(members, names);
    for server in [first, second, third] {
        server.shutdown().await;
    }
}

async fn members(client: &Client) -> Vec<String> {
    let request = Request::get("/shoal/v1/members").body(shoal_client::empty_body()).expect("a request");
    let (status, body) = json(client.raw(request).await.expect("an answer")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let members = body.as_array().expect("a list").iter();
    members.map(|member| member["name"].as_str().expect("a name").to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_refused_and_the_admin_makes_and_removes_good_ones() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = start(config("server-1", directory.path())).await;
    let client = admin(directory.path(), "server-1");
    let wish = |name: &str| Wish { name: name.to_string(), addresses: Vec::new(), details: Value::Null };
    let request = |method: &str, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(path).body(shoal_client::bytes_body(body.to_string()));
        client.raw(request.expect("a request"))
    };

    let made = request("POST", "/shoal/v1/tokens", json!({"role": "worker"})).await.expect("an answer");
    let token: shoal_controlplane::JoinToken =
        json(made).await.1["token"].as_str().expect("a token").parse().expect("a token");
    let mut forged = token.clone();
    forged.secret = "guessed".to_string();
    let error =
        shoal_link::join::join(server.link_address(), &forged, &wish("worker-1")).await.map(drop).expect_err("refused");
    assert_eq!(error.to_string(), "the token is not known to this cluster");
    let mut promoted = token.clone();
    promoted.role = JoinRole::Server;
    let error = shoal_link::join::join(server.link_address(), &promoted, &wish("server-2"))
        .await
        .map(drop)
        .expect_err("refused");
    assert_eq!(error.to_string(), "the token is for a worker");
    let error =
        shoal_link::join::join(server.link_address(), &token, &wish("No Name")).await.map(drop).expect_err("refused");
    assert!(error.to_string().contains("is no name for a node"), "{error}");
    shoal_link::join::join(server.link_address(), &token, &wish("worker-1")).await.expect("joined");

    let removed = request("DELETE", &format!("/shoal/v1/tokens/{}", token.id), Value::Null).await.expect("an answer");
    assert_eq!(removed.status(), StatusCode::OK);
    let error =
        shoal_link::join::join(server.link_address(), &token, &wish("worker-2")).await.map(drop).expect_err("refused");
    assert_eq!(error.to_string(), "the token is not known to this cluster");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reaches_the_api_over_its_link_and_no_more_than_a_node_may() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = start(config("server-1", directory.path())).await;
    let (source, endpoint) = worker(&server, "worker-1").await;
    let pool = Pool::new(endpoint).only(SERVERS);
    let connection = pool.get(server.link_address()).await.expect("a connection");
    let send = async |method: &str, path: &str, body: Value| {
        let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed();
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body);
        json(shoal_link::http::request(&connection, request.expect("a request")).await.expect("an answer")).await
    };

    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}});
    let (status, body) = send("POST", "/api/v1/nodes", node).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let (status, _) = send("DELETE", "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for (method, path) in [
        ("GET", "/shoal/v1/tokens"),
        ("POST", "/shoal/v1/tokens"),
        ("HEAD", "/shoal/v1/nodes/worker-1"),
        ("GET", "/shoal/v1/blobs/x"),
    ] {
        assert_eq!(send(method, path, json!({"role": "server"})).await.0, StatusCode::FORBIDDEN, "{method} {path}");
    }
    assert_eq!(send("GET", "/shoal/v1/members", Value::Null).await.0, StatusCode::OK);
    assert_eq!(send("GET", "/v2/", Value::Null).await.0, StatusCode::OK);

    // Its certificate renews itself by what it proves.
    let renewed = shoal_link::renew::renew(&source, directory.path(), "worker", async |request: Vec<u8>| {
        let (_, body) = send("POST", shoal_link::renew::PATH, json!({ "request": request })).await;
        serde_json::from_value(body["certificate"].clone()).map_err(|error| error.to_string())
    });
    renewed.await.expect("renewed");

    // A stream that is for servers only costs it the connection.
    let stream = connection.open(StreamKind::STORE_FIRST).await.expect("a stream");
    eventually("the end of the connection", connection.closed()).await;
    drop(stream);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_asked_over_the_connection_that_it_made_from_any_server() {
    let directory = tempfile::tempdir().expect("a folder");
    let first = start(config("server-1", directory.path())).await;
    let second = start(joining("server-2", directory.path(), &first)).await;
    let (_source, endpoint) = worker(&first, "worker-1").await;
    let pool = Pool::new(endpoint).only(SERVERS);
    let connection = pool.get(first.link_address()).await.expect("a connection");
    let client = admin(directory.path(), "server-2");
    // The pods of a node that is not there would be deleted.
    let mut node = Node::default();
    node.metadata.name = Some("worker-1".to_string());
    client.create(&node).await.expect("registered");
    let mut pod = Pod::default();
    pod.metadata.name = Some("ticker".to_string());
    pod.metadata.namespace = Some("default".to_string());
    let container = Container { name: "main".to_string(), image: Some("ticker:1".to_string()), ..Container::default() };
    pod.spec =
        Some(PodSpec { node_name: Some("worker-1".to_string()), containers: vec![container], ..PodSpec::default() });
    client.create(&pod).await.expect("created");
    tokio::spawn(async move {
        while let Ok((_, stream)) = connection.accept().await {
            let answer = |request: Request<shoal_link::http::Body>| async move {
                http::Response::new(shoal_client::bytes_body(format!("asked for {}", request.uri())))
            };
            tokio::spawn(shoal_link::http::serve(stream, answer));
        }
    });
    for name in ["server-1", "server-2"] {
        let client = admin(directory.path(), name);
        let text = eventually("an answer of the worker", async {
            loop {
                let request = Request::get("/api/v1/namespaces/default/pods/ticker/log?tailLines=5")
                    .body(shoal_client::empty_body());
                let response = client.raw(request.expect("a request")).await.expect("an answer");
                if response.status() == StatusCode::OK {
                    break response.into_body().collect().await.expect("a body").to_bytes();
                }
                let (status, body) = json(response).await;
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}: {body}");
            }
        })
        .await;
        assert_eq!(text, "asked for /containerLogs/default/ticker/main?tailLines=5", "{name}");
    }
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_pushed_to_one_server_outlives_it() {
    let directory = tempfile::tempdir().expect("a folder");
    let first = start(config("server-1", directory.path())).await;
    let second = start(joining("server-2", directory.path(), &first)).await;
    let third = start(joining("server-3", directory.path(), &first)).await;
    let digest = sha2::Sha256::digest(b"a module").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let push = Request::post(format!("/v2/hello/blobs/uploads/?digest=sha256:{digest}"));
    let push = push.body(shoal_client::bytes_body("a module")).expect("a request");
    let pushed = admin(directory.path(), "server-3").raw(push).await.expect("an answer");
    assert_eq!(pushed.status(), StatusCode::CREATED);
    third.shutdown().await;
    for name in ["server-1", "server-2"] {
        let pull = Request::get(format!("/v2/hello/blobs/sha256:{digest}")).body(shoal_client::empty_body());
        let pulled = admin(directory.path(), name).raw(pull.expect("a request")).await.expect("an answer");
        assert_eq!(pulled.status(), StatusCode::OK);
        assert_eq!(pulled.into_body().collect().await.expect("a body").to_bytes(), "a module");
    }
    first.shutdown().await;
    second.shutdown().await;
}
