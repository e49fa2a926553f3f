//! The loops against a real server: what is declared comes to be, with nodes that only pretend.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use shoal_client::{
    Cache, Client, DeleteOptions, Kubeconfig, Object, Patch, Selection, Snapshot, TlsTransport, key_of,
};
use shoal_controlplane::{Server, ServerConfig};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn server(directory: &Path) -> (Server, Client) {
    let mut config = ServerConfig::new("server-1", directory.join("server-1"));
    config.api_address = ANY;
    config.link_address = ANY;
    let server = Server::start(config).await.expect("a server");
    tokio::time::timeout(DEADLINE, server.ready()).await.expect("readiness");
    let kubeconfig = Kubeconfig::load(&directory.join("server-1/admin.kubeconfig")).expect("a kubeconfig");
    (server, Client::new(Arc::new(TlsTransport::new(&kubeconfig).expect("a transport"))))
}

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("it is of its kind")
}

/// Waits until a cache looks as wanted.
async fn until<K: Object>(what: &str, cache: &Cache<K>, wanted: impl Fn(&Snapshot<K>) -> bool) {
    let mut changed = cache.changed();
    let arrival = async {
        loop {
            changed.borrow_and_update();
            if wanted(&cache.snapshot()) {
                return;
            }
            changed.changed().await.expect("the cache lives");
        }
    };
    if tokio::time::timeout(DEADLINE, arrival).await.is_err() {
        panic!("{what} did not come about: {:#?}", cache.snapshot());
    }
}

/// A node that says that all its pods are ready, and lets go of those that are to go, until `stop`.
async fn pretend(client: Client, name: &'static str, stop: CancellationToken) {
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "status": {
        "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110"},
        "capacity": {"cpu": "4", "memory": "4Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now(), "lastHeartbeatTime": Timestamp::now()}],
    }});
    let made = client.create(&read::<Node>(node.clone())).await.expect("a node");
    client.replace_status(&Node { status: read::<Node>(node).status, ..made }).await.expect("a status");
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": 4, "renewTime": MicroTime(Timestamp::now())});
    let lease = json!({"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec});
    client.create(&read::<Lease>(lease)).await.expect("a lease");
    let selection = Selection { fields: Some(format!("spec.nodeName={name}")), ..Selection::default() };
    let pods = Cache::<Pod>::start(client.clone(), selection, stop.clone());
    let mut changed = pods.changed();
    let mut renewal = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = renewal.tick() => {
                let renewed = Patch::Merge(json!({"spec": {"renewTime": MicroTime(Timestamp::now())}}));
                client.patch::<Lease>("kube-node-lease", name, &renewed).await.expect("renewed");
            }
            _ = changed.changed() => for pod in pods.snapshot().values() {
                work(&client, pod).await;
            }
        }
    }
}

async fn work(client: &Client, pod: &Pod) {
    let key = key_of(pod);
    if pod.metadata.deletion_timestamp.is_some() {
        let now = DeleteOptions { grace_seconds: Some(0), uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
        // It may be gone already.
        let _ = client.delete::<Pod>(&key.namespace, &key.name, &now).await;
    } else if pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Running") {
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now()}]);
        let status = json!({"status": {"phase": "Running", "podIP": "10.64.0.9", "podIPs": [{"ip": "10.64.0.9"}], "conditions": ready}});
        let _ = client.patch_status::<Pod>(&key.namespace, &key.name, &Patch::Strategic(status)).await;
    }
}

fn deployment(replicas: i32) -> Deployment {
    read(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "hello:1"}]}},
        },
    }))
}

fn available(deployments: &Snapshot<Deployment>) -> i32 {
    let status = deployments
        .values()
        .find(|found| found.metadata.name.as_deref() == Some("web"))
        .and_then(|web| web.status.clone());
    status.and_then(|status| status.available_replicas).unwrap_or_default()
}

fn on(pods: &Snapshot<Pod>, node: &str) -> usize {
    pods.values().filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_comes_to_be_and_goes_again() {
    let directory = tempfile::tempdir().expect("a folder");
    let (server, client) = server(directory.path()).await;
    let stop = CancellationToken::new();
    let (a, b) = (stop.child_token(), stop.child_token());
    let nodes =
        [tokio::spawn(pretend(client.clone(), "a", a.clone())), tokio::spawn(pretend(client.clone(), "b", b.clone()))];
    let everything = |fields: Option<&str>| Selection { fields: fields.map(str::to_owned), ..Selection::default() };
    let deployments = Cache::<Deployment>::start(client.clone(), everything(None), stop.clone());
    let pods = Cache::<Pod>::start(client.clone(), everything(None), stop.clone());
    let known = Cache::<Node>::start(client.clone(), everything(None), stop.clone());
    let has_network = |node: &Arc<Node>| node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
    until("two nodes with networks", &known, |nodes| nodes.len() == 2 && nodes.values().all(has_network)).await;

    client.create(&deployment(4)).await.expect("created");
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    client.create(&read::<Service>(service)).await.expect("created");
    until("four available pods", &deployments, |all| available(all) == 4).await;
    until("two pods a node", &pods, |pods| (on(pods, "a"), on(pods, "b")) == (2, 2)).await;
    let slices = Cache::<EndpointSlice>::start(client.clone(), everything(None), stop.clone());
    let of_web =
        |slice: &&Arc<EndpointSlice>| slice.metadata.name.as_deref().is_some_and(|name| name.starts_with("web-"));
    until("four endpoints", &slices, |all| {
        all.values().filter(of_web).map(|slice| slice.endpoints.len()).sum::<usize>() == 4
    })
    .await;

    b.cancel();
    until("all pods on the node that is left", &pods, |pods| (on(pods, "a"), on(pods, "b")) == (4, 0)).await;
    until("four available pods again", &deployments, |all| available(all) == 4).await;

    let background = DeleteOptions::default();
    client.delete::<Deployment>("default", "web", &background).await.expect("deleted");
    until("no pods", &pods, Snapshot::is_empty).await;
    let sets = Cache::<ReplicaSet>::start(client.clone(), everything(None), stop.clone());
    sets.synced().await;
    until("no replica sets", &sets, Snapshot::is_empty).await;

    stop.cancel();
    for node in nodes {
        node.await.expect("a node that pretends well");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_furnished_and_emptied() {
    let directory = tempfile::tempdir().expect("a folder");
    let (server, client) = server(directory.path()).await;
    let stop = CancellationToken::new();
    let maps = Cache::<ConfigMap>::start(client.clone(), Selection::default(), stop.clone());
    let namespaces = Cache::<Namespace>::start(client.clone(), Selection::default(), stop.clone());
    client.create(&read::<Namespace>(json!({"metadata": {"name": "apps"}}))).await.expect("created");
    let in_apps = |maps: &Snapshot<ConfigMap>| maps.keys().filter(|key| key.namespace == "apps").count();
    until("the cluster's CA in the new namespace", &maps, |maps| in_apps(maps) == 1).await;
    client
        .create(&read::<ConfigMap>(json!({"metadata": {"name": "mine", "namespace": "apps"}})))
        .await
        .expect("created");
    client.delete::<Namespace>("", "apps", &DeleteOptions::default()).await.expect("deleted");
    until("no such namespace", &namespaces, |all| !all.keys().any(|key| key.name == "apps")).await;
    until("nothing in it", &maps, |maps| in_apps(maps) == 0).await;
    stop.cancel();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_goes_when_there_is_room() {
    let directory = tempfile::tempdir().expect("a folder");
    let (server, client) = server(directory.path()).await;
    let stop = CancellationToken::new();
    let pods = Cache::<Pod>::start(client.clone(), Selection::default(), stop.clone());
    let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "main", "image": "hello:1"}]}});
    client.create(&read::<Pod>(pod)).await.expect("created");
    let reason = |pod: &Pod| {
        let conditions = pod.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        conditions
            .into_iter()
            .find(|condition| condition.type_ == "PodScheduled")
            .and_then(|condition| condition.message)
    };
    let refused = "no nodes available to schedule pods";
    until("a refusal", &pods, |pods| pods.values().any(|pod| reason(pod).as_deref() == Some(refused))).await;
    let node = tokio::spawn(pretend(client.clone(), "a", stop.clone()));
    until("a place", &pods, |pods| on(pods, "a") == 1).await;
    stop.cancel();
    node.await.expect("a node that pretends well");
    server.shutdown().await;
}
