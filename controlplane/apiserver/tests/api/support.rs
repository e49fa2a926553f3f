//! One API server over a store in a temporary directory, and the requests that tests make.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use shoal_apiserver::{ApiServer, Body, Config, NodeRequests, NodeUnreachable, Peer, ServiceAccountKey};
use shoal_store::{Member, PeerIo, PeerStream, Peers, Store};

struct NoPeers;

impl Peers for NoPeers {
    fn open(&self, _to: &Member, _kind: PeerStream) -> BoxFuture<'static, std::io::Result<Box<dyn PeerIo>>> {
        Box::pin(async { Err(std::io::Error::other("there are no peers")) })
    }
}

/// Nodes whose agents answer every request with its path and query, and with its method and headers in a header.
struct EchoingNodes;

impl NodeRequests for EchoingNodes {
    fn send(&self, node: &str, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, NodeUnreachable>> {
        let node = node.to_owned();
        Box::pin(async move {
            if node == "gone" {
                return Err(NodeUnreachable { node, reason: "not connected".to_owned() });
            }
            let mut response = Response::new(body(request.uri().to_string()));
            let names =
                request.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("?")));
            let told = [request.method().to_string(), node].into_iter().chain(names).collect::<Vec<_>>().join(" ");
            response.headers_mut().insert("asked", told.parse().expect("a header"));
            response.headers_mut().insert("connection", "close".parse().expect("a header"));
            Ok(response)
        })
    }
}

pub fn body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

pub struct Api {
    pub server: ApiServer,
    _directory: tempfile::TempDir,
}

impl Api {
    /// A new cluster of one, with what bootstrap makes.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let member = Member {
            id: 1,
            name: "s1".to_owned(),
            link_address: "127.0.0.1:1".to_owned(),
            api_address: "127.0.0.1:2".to_owned(),
        };
        let disk = Arc::new(shoal_store::Folder::open(directory.path()).expect("a disk"));
        let keys = shoal_store::seal::Keyring::generate().expect("a ring");
        let config = shoal_store::Config::new(disk, keys, member);
        let store = Store::open(config, Arc::new(NoPeers)).await.expect("an empty directory opens");
        store.initialize().await.expect("a cluster of one");
        let key =
            ServiceAccountKey::from_pem(&ServiceAccountKey::generate_pem().expect("randomness")).expect("just made");
        let server = ApiServer::new(Config {
            store,
            server_name: "s1".to_owned(),
            version: "0.1.0".to_owned(),
            service_account_key: Arc::new(key),
            event_ttl: Duration::from_secs(3600),
            node_requests: Arc::new(EchoingNodes),
        });
        server.bootstrap(&["127.0.0.1:6443".parse().expect("an address")]).await.expect("bootstrap");
        Self { server, _directory: directory }
    }

    pub async fn send(
        &self,
        peer: Peer,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        content: impl Into<Bytes>,
    ) -> Answer {
        let response = self.open(peer, method, path, headers, content).await;
        let (parts, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.expect("a whole body").to_bytes()).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { code: parts.status.as_u16(), headers: parts.headers, text, json }
    }

    pub async fn open(
        &self,
        peer: Peer,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        content: impl Into<Bytes>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.server.handle(request.body(body(content)).expect("a request"), peer).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(admin(), "GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, object: Value) -> Answer {
        self.send(admin(), "POST", path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn put(&self, path: &str, object: Value) -> Answer {
        self.send(admin(), "PUT", path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(admin(), "DELETE", path, &[], "").await
    }

    /// Patches as `merge`, `strategic-merge` or `json`.
    pub async fn patch(&self, path: &str, kind: &str, patch: Value) -> Answer {
        let media = format!("application/{kind}-patch+json");
        self.send(admin(), "PATCH", path, &[("content-type", &media)], patch.to_string()).await
    }

    /// Applies a configuration; `query` is what follows `fieldManager=`: `kubectl&force=true`.
    pub async fn apply(&self, path: &str, query: &str, configuration: impl ToString) -> Answer {
        let path = format!("{path}?fieldManager={query}");
        let headers = [("content-type", "application/apply-patch+yaml")];
        self.send(admin(), "PATCH", &path, &headers, configuration.to_string()).await
    }

    /// Creates an object that must not be refused.
    pub async fn create(&self, path: &str, object: Value) -> Value {
        let answer = self.post(path, object).await;
        assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.text);
        answer.json
    }
}

pub fn admin() -> Peer {
    Peer::Certificate { common_name: "shoal-admin".to_owned(), organizations: vec!["system:masters".to_owned()] }
}

pub fn user(name: &str) -> Peer {
    Peer::Certificate { common_name: name.to_owned(), organizations: Vec::new() }
}

pub fn node(name: &str) -> Peer {
    Peer::Certificate { common_name: format!("system:node:{name}"), organizations: vec!["system:nodes".to_owned()] }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const SERVICES: &str = "/api/v1/namespaces/default/services";

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
           "spec": {"containers": [{"name": "main", "image": "hello:1"}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
           "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "hello:1"}]}}}})
}

pub fn service(name: &str, kind: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
           "spec": {"type": kind, "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}})
}
