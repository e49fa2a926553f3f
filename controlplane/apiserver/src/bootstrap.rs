//! What every cluster holds from the first moment: its namespaces, the default RBAC roles, the API's own Service; and what it
//! begins with: a class of storage.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shoal_api::{Status, rbac, resource};

use crate::{ApiServer, Peer, body};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const USER: &str = "system:shoal:bootstrap";

impl ApiServer {
    /// Makes what every cluster must hold, where it is missing, and points `default/kubernetes` at `api_addresses`.
    ///
    /// Harmless to repeat; to be called on the leader when it starts and when the servers' addresses change.
    ///
    /// # Errors
    /// What the API answers when an object cannot be written.
    pub async fn bootstrap(&self, api_addresses: &[SocketAddr]) -> Result<(), Status> {
        // Only at the very beginning, before there is a namespace: who deletes the class does not want it back.
        let is_new = matches!(self.ask(Method::GET, "/api/v1/namespaces/default", None).await, Err(status) if status.code == 404);
        if is_new {
            self.ensure("/apis/storage.k8s.io/v1/storageclasses", local_path_class()).await?;
        }
        for name in NAMESPACES {
            self.ensure(
                "/api/v1/namespaces",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )
            .await?;
        }
        for object in rbac::bootstrap::bootstrap() {
            self.ensure(&collection_of(&object)?, object).await?;
        }
        self.ensure("/api/v1/namespaces/default/services", kubernetes_service()).await?;
        if !api_addresses.is_empty() {
            self.replace("/api/v1/namespaces/default/endpoints", endpoints(api_addresses)).await?;
            self.replace("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", endpoint_slice(api_addresses))
                .await?;
        }
        Ok(())
    }

    /// Creates an object unless it is there.
    async fn ensure(&self, collection: &str, object: Value) -> Result<(), Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().replace(':', "%3A");
        match self.ask(Method::GET, &format!("{collection}/{name}"), None).await {
            Err(status) if status.code == 404 => match self.ask(Method::POST, collection, Some(object)).await {
                Err(status) if status.code != 409 => Err(status),
                _ => Ok(()),
            },
            found => found.map(drop),
        }
    }

    /// Creates an object or makes it what it should be.
    async fn replace(&self, collection: &str, object: Value) -> Result<(), Status> {
        self.ensure(collection, object.clone()).await?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        self.ask(Method::PUT, &format!("{collection}/{name}"), Some(object.clone())).await.map(drop)
    }

    /// Asks this server as one of its own loops.
    async fn ask(&self, method: Method, path: &str, object: Option<Value>) -> Result<Value, Status> {
        let body = object.map_or_else(body::empty, |object| body::full(object.to_string()));
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| Status::internal(format!("path {path:?} is malformed")))?;
        *request.headers_mut() = HeaderMap::new();
        let response = self.handle(request, Peer::Internal(USER.to_owned())).await;
        let success = response.status().is_success();
        let body =
            response.into_body().collect().await.map_err(|error| Status::internal(error.to_string()))?.to_bytes();
        if success {
            serde_json::from_slice(&body).map_err(|error| Status::internal(error.to_string()))
        } else {
            Err(serde_json::from_slice(&body).unwrap_or_else(|error| Status::internal(error.to_string())))
        }
    }
}

/// The path of the collection that a bootstrap object belongs to.
fn collection_of(object: &Value) -> Result<String, Status> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let row = resource::find_kind("rbac.authorization.k8s.io", "v1", kind)
        .ok_or_else(|| Status::internal(format!("bootstrap object of unknown kind {kind:?}")))?;
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{}", row.plural),
        None => format!("/apis/rbac.authorization.k8s.io/v1/{}", row.plural),
    })
}

/// The class of directories on the nodes, which the cluster's own controllers make.
fn local_path_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "shoal.dev/local-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

fn kubernetes_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    })
}

fn endpoints(addresses: &[SocketAddr]) -> Value {
    // One subset for each port: servers on one machine differ in the port only.
    let mut subsets: std::collections::BTreeMap<u16, Vec<Value>> = std::collections::BTreeMap::new();
    for address in addresses {
        subsets.entry(address.port()).or_default().push(json!({"ip": address.ip().to_string()}));
    }
    let subsets: Vec<Value> = subsets
        .into_iter()
        .map(|(port, addresses)| json!({"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": subsets,
    })
}

fn endpoint_slice(addresses: &[SocketAddr]) -> Value {
    let first = addresses.first().map_or(6443, SocketAddr::port);
    // A slice has one set of ports; servers that listen elsewhere stand in Endpoints only.
    let endpoints: Vec<Value> = addresses
        .iter()
        .filter(|address| address.port() == first)
        .map(|address| json!({"addresses": [address.ip().to_string()], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": first, "protocol": "TCP"}],
    })
}
