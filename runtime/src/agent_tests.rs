//! The agent against an API in memory and guests that are doubles: what it reports, and that it goes on without the API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shoal_client::{Body, Transport, TransportError, bytes_body};
use shoal_link::ca::{CertificateAuthority, Subject};
use shoal_link::{Endpoint, IdentitySource, PeerIdentity, Pool};
use shoal_tests::signing::Signer;
use tokio::sync::{Notify, watch};

use crate::agent::{Agent, Parts};
use crate::config::AgentConfig;
use crate::eviction::signals::Signals;
use crate::eviction::threshold::{Reading, Readings, Signal};
use crate::guests::{
    Exit, Grants, GuestFunction, GuestProcess, Guests, ImageRequest, PrepareError, Prepared, Program, Started,
    StoredModule, Usage,
};
use crate::local_store::LocalStore;
use crate::uplink::Uplink;

/// An API that keeps objects by path, merges patches, and tells watchers of every change.
#[derive(Clone, Default)]
struct Api {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    changes: Arc<watch::Sender<Vec<(String, Value)>>>,
    is_down: Arc<AtomicBool>,
    /// How many tokens were issued.
    tokens: Arc<AtomicU32>,
}

impl Api {
    fn put(&self, path: &str, mut object: Value) -> Value {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.send_modify(|changes| {
            object["metadata"]["resourceVersion"] = json!((changes.len() + 2).to_string());
            changes.push((path.to_owned(), json!({"type": "MODIFIED", "object": object})));
        });
        objects.insert(path.to_owned(), object.clone());
        object
    }

    fn remove(&self, path: &str) -> Option<Value> {
        let mut gone = self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(path)?;
        self.changes.send_modify(|changes| {
            gone["metadata"]["resourceVersion"] = json!((changes.len() + 2).to_string());
            changes.push((path.to_owned(), json!({"type": "DELETED", "object": gone})));
        });
        Some(gone)
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Waits until the object at `path` (null if it is gone) is as wanted.
    async fn until(&self, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.changes.subscribe();
        loop {
            let object = self.get(path).unwrap_or_default();
            if is_it(&object) {
                return object;
            }
            changes.changed().await.expect("the API lives");
        }
    }

    fn list(&self, collection: &str) -> Value {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let items: Vec<&Value> =
            objects.iter().filter(|(path, _)| is_in(path, collection)).map(|(_, object)| object).collect();
        json!({"metadata": {"resourceVersion": (self.changes.borrow().len() + 1).to_string()}, "items": items})
    }

    fn watch(&self, collection: &str, query: &str) -> Body {
        let from =
            query.split('&').find_map(|p| p.strip_prefix("resourceVersion=")?.parse::<usize>().ok()).unwrap_or(1) - 1;
        let state = (self.changes.subscribe(), from, collection.to_owned());
        let frames = futures_util::stream::unfold(state, |(mut changes, mut next, collection)| async move {
            loop {
                let known = changes.borrow_and_update().clone();
                while let Some((path, event)) = known.get(next) {
                    next += 1;
                    if is_in(path, &collection) {
                        let frame = http_body::Frame::data(Bytes::from(format!("{event}\n")));
                        return Some((Ok(frame), (changes, next, collection)));
                    }
                }
                changes.changed().await.ok()?;
            }
        });
        BodyExt::boxed(http_body_util::StreamBody::new(frames))
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        if parts.method == Method::GET {
            return if query.contains("watch=") {
                Response::new(self.watch(&path, &query))
            } else if query.contains("limit=") {
                answer(StatusCode::OK, &self.list(&path))
            } else {
                self.get(&path).map_or_else(missing, |object| answer(StatusCode::OK, &object))
            };
        }
        let body = body.collect().await.expect("a body").to_bytes();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let whole = path.strip_suffix("/status").unwrap_or(&path).to_owned();
        match parts.method {
            Method::POST if path.ends_with("/serviceaccounts/cart/token") => {
                let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
                let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(if number == 1 { 2 } else { 600 });
                let pod = &sent["spec"]["boundObjectRef"]["name"];
                let token = format!("{number} for {} of {pod}", sent["spec"]["audiences"][0]);
                let status = json!({"token": token, "expirationTimestamp": until});
                let spec = sent["spec"].clone();
                let answered = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec, "status": status});
                answer(StatusCode::CREATED, &answered)
            }
            Method::POST => {
                let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap_or_default());
                answer(StatusCode::CREATED, &self.put(&path, sent))
            }
            Method::PATCH => match self.get(&whole) {
                Some(mut object) => {
                    merge(&mut object, &sent);
                    answer(StatusCode::OK, &self.put(&whole, object))
                }
                None => missing(),
            },
            _ => self.remove(&whole).map_or_else(missing, |object| answer(StatusCode::OK, &object)),
        }
    }
}

/// Whether an object's path is of a collection, in whichever namespace.
fn is_in(path: &str, collection: &str) -> bool {
    let plural = collection.rsplit('/').next().unwrap_or_default();
    path.rsplit('/').nth(1) == Some(plural)
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().map(|o| o.remove(name));
        } else if name == "conditions" {
            merge_by_type(&mut object[name.as_str()], value);
        } else {
            merge(&mut object[name.as_str()], value);
        }
    }
}

fn merge_by_type(known: &mut Value, patch: &Value) {
    let mut merged = known.as_array().cloned().unwrap_or_default();
    for condition in patch.as_array().into_iter().flatten() {
        match merged.iter_mut().find(|known| known["type"] == condition["type"]) {
            Some(known) => merge(known, condition),
            None => merged.push(condition.clone()),
        }
    }
    *known = merged.into();
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(bytes_body(value.to_string()));
    *response.status_mut() = status;
    response
}

fn missing() -> Response<Body> {
    answer(
        StatusCode::NOT_FOUND,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404}),
    )
}

impl Transport for Api {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let api = self.clone();
        Box::pin(async move {
            if api.is_down.load(Ordering::SeqCst) {
                return Err(TransportError::Unreachable("the test says so".to_owned()));
            }
            Ok(api.answer(request).await)
        })
    }
}

/// Guests by image: `hello` is a function, `once:N` a process that prints and exits with N, anything else is unknown. Whoever has a
/// key has signed what is called so.
#[derive(Default)]
struct Doubles {
    /// What is on the disk, whatever was prepared.
    stored: Shared<Vec<StoredModule>>,
}

type Shared<T> = Arc<Mutex<T>>;

impl Guests for Doubles {
    fn prepare(&self, image: ImageRequest) -> BoxFuture<'_, Result<Prepared, PrepareError>> {
        Box::pin(async move {
            let signer = match &image.signers {
                Some(keys) => {
                    Some(keys.first().filter(|_| image.reference.contains("signed")).ok_or(PrepareError {
                        reason: "SignatureValidationFailed",
                        message: format!("{} is not signed", image.reference),
                    })?)
                }
                None => None,
            };
            if !image.reference.starts_with("hello") && !image.reference.starts_with("once") {
                return Err(PrepareError {
                    reason: "ErrImagePull",
                    message: format!("{} does not exist", image.reference),
                });
            }
            let image_id = format!("{}@sha256:0", image.reference);
            let module = "sha256:0".to_owned();
            Ok(Prepared {
                image_id,
                module,
                was_fetched: true,
                size_bytes: 1,
                signer: signer.map(shoal_images::PublicKey::fingerprint),
                program: Arc::new(Double(image.reference)),
            })
        })
    }

    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredModule>, String>> {
        Box::pin(async { Ok(self.stored.lock().expect("a lock").clone()) })
    }

    fn remove<'a>(&'a self, module: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.stored.lock().expect("a lock").retain(|one| one.module != module);
        Box::pin(async { Ok(()) })
    }

    fn toolbox(&self) -> BoxFuture<'_, Result<Arc<dyn Program>, String>> {
        Box::pin(async { Err("there is none".to_owned()) })
    }

    fn threads(&self) -> tokio::runtime::Handle {
        tokio::runtime::Handle::current()
    }
}

struct Double(String);

impl Program for Double {
    fn start(&self, grants: Grants) -> Result<Started, String> {
        if let Some((_, code)) = self.0.split_once("once:") {
            grants.output.write(crate::logs::Stream::Stdout, b"done\n");
            let exit = Exit {
                code: code.parse().unwrap_or(1),
                reason: if code == "0" { "Completed" } else { "Error" },
                message: None,
            };
            return Ok(Started::Process(Box::new(Once(exit))));
        }
        let greeting = grants.environment.iter().find(|(name, _)| name == "GREETING").map(|(_, value)| value.clone());
        Ok(Started::Function(Arc::new(Hello { greeting: greeting.unwrap_or_default(), killed: Notify::new() })))
    }

    fn runs_commands(&self) -> bool {
        self.0.starts_with("once")
    }

    fn entrypoint(&self) -> Vec<String> {
        Vec::new()
    }

    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

struct Hello {
    greeting: String,
    killed: Notify,
}

impl GuestFunction for Hello {
    fn call(&self, _request: Request<Body>) -> BoxFuture<'_, Response<Body>> {
        let text = self.greeting.clone();
        Box::pin(async move { Response::new(bytes_body(text)) })
    }

    fn kill(&self) {
        self.killed.notify_waiters();
    }

    fn usage(&self) -> Arc<dyn Usage> {
        Arc::new(Nothing)
    }
}

struct Nothing;

impl Usage for Nothing {
    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

struct Once(Exit);

impl GuestProcess for Once {
    fn wait(&mut self) -> BoxFuture<'_, Exit> {
        let exit = self.0.clone();
        Box::pin(async move { exit })
    }

    fn ask_stop(&mut self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn kill(&mut self) {}

    fn usage(&self) -> Arc<dyn Usage> {
        Arc::new(Nothing)
    }
}

async fn agent(directory: &std::path::Path, api: &Api) -> Agent {
    configured(directory, api, undaunted(), None).await
}

/// The settings of a node that takes pods however full the disk is of the machine that tests.
fn undaunted() -> AgentConfig {
    AgentConfig { eviction_hard: "".parse().expect("no thresholds"), ..AgentConfig::default() }
}

/// With more settings, and a node that has left what `signals` say.
async fn configured(
    directory: &std::path::Path,
    api: &Api,
    config: AgentConfig,
    signals: Option<Arc<dyn Signals>>,
) -> Agent {
    with_guests(directory, api, config, signals, Doubles::default()).await
}

async fn with_guests(
    directory: &std::path::Path,
    api: &Api,
    config: AgentConfig,
    signals: Option<Arc<dyn Signals>>,
    guests: Doubles,
) -> Agent {
    shoal_link::install_crypto();
    // It has no link, so it is registered for it.
    if !api.is_down.load(Ordering::SeqCst) {
        api.put("/api/v1/nodes/w1", json!({"metadata": {"name": "w1"}, "spec": {"podCIDR": "10.64.7.0/24"}}));
        if api.get(NAMESPACE).is_none() {
            api.put(NAMESPACE, json!({"metadata": {"name": "default"}}));
        }
    }
    let config = AgentConfig {
        node_name: "w1".into(),
        data_dir: directory.to_owned(),
        node_address: [127, 0, 0, 1].into(),
        ..config
    };
    let store = LocalStore::open(&directory.join("store")).expect("store");
    let ca = CertificateAuthority::create("test").expect("a CA");
    let subject = Subject {
        identity: PeerIdentity { common_name: "system:node:w1".into(), organizations: vec![shoal_link::NODES.into()] },
        member: true,
        names: Vec::new(),
        addresses: vec![[127, 0, 0, 1].into()],
        validity: Duration::from_secs(3_600),
    };
    let identity = IdentitySource::new(ca.issue(&subject).expect("an identity"));
    let endpoint = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &identity).expect("endpoint");
    let link_address = endpoint.local_address().expect("address");
    let parts = Parts {
        transport: Some(Arc::new(api.clone())),
        guests: Arc::new(guests),
        uplink: Uplink::new(Vec::new()),
        pool: Pool::new(endpoint),
        link_address,
        store,
        signals,
    };
    Agent::assemble(config.completed(), parts).await
}

fn pod(name: &str, image: &str, policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"nodeName": "w1", "restartPolicy": policy, "containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}], "env": [{"name": "GREETING", "value": "hi"}]}]}})
}

const NAMESPACE: &str = "/api/v1/namespaces/default";

/// A namespace that wants signatures by this key.
fn namespace(signer: &Signer) -> Value {
    json!({"metadata": {"name": "default", "annotations": {"shoal.dev/image-public-keys": signer.public_pem()}}})
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

async fn call(agent: &Agent, pod: &Value) -> Bytes {
    let address: SocketAddr =
        format!("{}:80", pod["status"]["podIP"].as_str().expect("an address")).parse().expect("an address");
    let request = Request::get("/").body(shoal_client::empty_body()).expect("a request");
    let response = agent.network().call_pod(address, request).await.unwrap_or_else(|error| error.response());
    response.into_body().collect().await.expect("a body").to_bytes()
}

fn agent_has_pods(agent: &Agent) -> bool {
    !agent.pods().list().is_empty()
}

#[tokio::test]
async fn a_pod_becomes_ready_answers_and_goes_when_it_is_deleted() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let agent = agent(directory.path(), &api).await;
    api.put(&path("web"), pod("web", "hello:1", "Always"));
    let ready = api.until(&path("web"), is_ready).await;
    assert_eq!(ready["status"]["containerStatuses"][0]["imageID"], "hello:1@sha256:0");
    assert_eq!(call(&agent, &ready).await, "hi");
    let mut deleted = ready;
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    api.put(&path("web"), deleted);
    api.until(&path("web"), Value::is_null).await;
    agent.shutdown().await;
}

/// Waits until no pod has a worker.
async fn all_rest(agent: &Agent) {
    while !agent.pods().awake().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_pod_with_which_there_is_nothing_to_do_rests_until_it_is_told_something() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let agent = agent(directory.path(), &api).await;
    api.put(&path("web"), pod("web", "hello:1", "Always"));
    let mut ready = api.until(&path("web"), is_ready).await;
    all_rest(&agent).await;
    assert_eq!(call(&agent, &ready).await, "hi");
    assert!(agent.pods().find("default", "web").is_some() && agent.pods().is_busy("uid-web"));
    ready["metadata"]["labels"] = json!({"a": "b"});
    ready["metadata"]["generation"] = json!(2);
    api.put(&path("web"), ready);
    let mut seen = api.until(&path("web"), |pod| pod["status"]["observedGeneration"] == 2).await;
    all_rest(&agent).await;
    assert_eq!(seen["status"]["containerStatuses"][0]["restartCount"], 0);
    let shown = agent.pods().find("default", "web").expect("the pod");
    assert_eq!(shown.metadata.labels.as_ref().map(BTreeMap::len), Some(1));
    seen["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    seen["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    api.put(&path("web"), seen);
    api.until(&path("web"), Value::is_null).await;
    while agent_has_pods(&agent) {
        tokio::task::yield_now().await;
    }
    agent.shutdown().await;
}

#[tokio::test]
async fn a_readiness_gate_that_others_open_stays_open() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let agent = agent(directory.path(), &api).await;
    let mut web = pod("web", "hello:1", "Always");
    web["spec"]["readinessGates"] = json!([{"conditionType": "example.com/open"}]);
    api.put(&path("web"), web);
    let is_waiting = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["reason"] == "ReadinessGatesNotReady")
    };
    let mut waiting = api.until(&path("web"), is_waiting).await;
    let open = json!({"type": "example.com/open", "status": "True"});
    waiting["status"]["conditions"].as_array_mut().expect("conditions").push(open);
    api.put(&path("web"), waiting);
    api.until(&path("web"), is_ready).await;
    // Once it rests it has said its last.
    all_rest(&agent).await;
    let rests = api.get(&path("web")).expect("the pod");
    assert!(is_ready(&rests), "{rests}");
    let ready = rests["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    assert_eq!(ready.map(|ready| ready["reason"].is_null()), Some(true), "what it waited for is no longer said");
    agent.shutdown().await;
}

#[tokio::test]
async fn what_ends_bad_or_cannot_run_says_why() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let agent = agent(directory.path(), &api).await;
    api.put(&path("batch"), pod("batch", "once:0", "Never"));
    api.put(&path("crash"), pod("crash", "once:3", "Always"));
    api.put(&path("none"), pod("none", "nobody:1", "Always"));
    let mut host = pod("host", "hello:1", "Always");
    host["spec"]["hostNetwork"] = json!(true);
    api.put(&path("host"), host);
    let batch = api.until(&path("batch"), |p| p["status"]["phase"] == "Succeeded").await;
    assert_eq!(batch["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let waiting = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    let crash = api.until(&path("crash"), |p| waiting(p) == "CrashLoopBackOff").await;
    assert_eq!(crash["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    api.until(&path("none"), |p| waiting(p) == "ErrImagePull").await;
    let refused = api.until(&path("host"), |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(
        (
            refused["status"]["reason"].as_str(),
            refused["status"]["message"].as_str().map(|m| m.starts_with("spec.hostNetwork"))
        ),
        (Some("UnsupportedPodSpec"), Some(true))
    );
    agent.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_restarts_without_an_api_starts_its_pods() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let first = agent(directory.path(), &api).await;
    api.put(&path("web"), pod("web", "hello:1", "Always"));
    let ready = api.until(&path("web"), is_ready).await;
    first.shutdown().await;
    api.is_down.store(true, Ordering::SeqCst);
    let second = agent(directory.path(), &api).await;
    let mut answer = call(&second, &ready).await;
    while answer != "hi" {
        tokio::task::yield_now().await;
        answer = call(&second, &ready).await;
    }
    // The pod was deleted meanwhile: it stops when the API is back.
    api.remove(&path("web"));
    api.is_down.store(false, Ordering::SeqCst);
    while agent_has_pods(&second) {
        tokio::task::yield_now().await;
    }
    second.shutdown().await;
}

struct NoDisk;

impl Signals for NoDisk {
    fn read(&self) -> Readings {
        [(Signal::NodefsAvailable, Reading { available: 1, capacity: 100 })].into()
    }
}

fn condition<'a>(node: &'a Value, name: &str) -> &'a Value {
    let conditions = node["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().find(|condition| condition["type"] == name).unwrap_or(&Value::Null)
}

/// An agent without a link does not write its Node, so the state is asked of the agent itself.
#[tokio::test]
async fn a_node_without_room_says_so_and_takes_no_pod() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let agent = configured(directory.path(), &api, AgentConfig::default(), Some(Arc::new(NoDisk))).await;
    let mut states = agent.context().node_state.subscribe();
    let state = states.wait_for(|state| !state.pressures.is_empty()).await.expect("the agent lives").clone();
    let config = agent.context().config.clone();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let status = crate::node::status(&config, &crate::node::Machine::default(), &state, None, now);
    let node = json!({"status": status});
    assert_eq!(condition(&node, "DiskPressure")["reason"], "KubeletHasDiskPressure");
    api.put(&path("web"), pod("web", "hello:1", "Always"));
    let refused = api.until(&path("web"), |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(
        (refused["status"]["reason"].as_str(), refused["status"]["message"].as_str()),
        (Some("Evicted"), Some("The node had condition: [DiskPressure]. "))
    );
    agent.shutdown().await;
}

/// A disk that is full while there is more than one image on it.
struct FullOfImages(Shared<Vec<StoredModule>>);

impl Signals for FullOfImages {
    fn read(&self) -> Readings {
        let available = if self.0.lock().expect("a lock").len() > 1 { 1 } else { 50 };
        [(Signal::NodefsAvailable, Reading { available, capacity: 100 })].into()
    }
}

#[tokio::test]
async fn a_node_without_room_removes_what_nobody_uses_and_tells_what_is_left() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let module = |number: u64, since| StoredModule {
        module: format!("sha256:{number}"),
        size_bytes: number,
        since,
        references: vec![format!("image:{number}")],
        image_ids: vec![format!("image@sha256:{number}")],
    };
    let stored = vec![module(1, jiff::Timestamp::UNIX_EPOCH), module(2, jiff::Timestamp::now())];
    let stored = Arc::new(Mutex::new(stored));
    let (guests, signals) = (Doubles { stored: stored.clone() }, FullOfImages(stored.clone()));
    let agent = with_guests(directory.path(), &api, AgentConfig::default(), Some(Arc::new(signals)), guests).await;
    let mut states = agent.context().node_state.subscribe();
    let is_told = |state: &crate::node_state::NodeState| !state.pressures.is_empty() && state.images.len() == 1;
    let state = states.wait_for(is_told).await.expect("the agent lives").clone();
    assert_eq!(stored.lock().expect("a lock").iter().map(|one| one.size_bytes).collect::<Vec<_>>(), [2]);
    let now = jiff::Timestamp::UNIX_EPOCH;
    let config = agent.context().config.clone();
    let status = crate::node::status(&config, &crate::node::Machine::default(), &state, None, now);
    assert_eq!(json!(status.images), json!([{"names": ["image@sha256:2", "image:2"], "sizeBytes": 2}]));
    agent.shutdown().await;
}

#[tokio::test]
async fn a_node_that_is_switched_off_ends_its_pods_and_says_why() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let config = AgentConfig { shutdown_grace_s: 30, ..undaunted() };
    let agent = configured(directory.path(), &api, config, None).await;
    api.put(&path("web"), pod("web", "hello:1", "Always"));
    api.until(&path("web"), is_ready).await;
    agent.shutdown().await;
    let ended = api.get(&path("web")).expect("the pod");
    assert_eq!(
        (ended["status"]["phase"].as_str(), ended["status"]["reason"].as_str()),
        (Some("Failed"), Some("Terminated"))
    );
    let conditions = ended["status"]["conditions"].as_array().expect("conditions");
    let disruption = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget");
    assert_eq!(disruption.map(|condition| &condition["reason"]), Some(&json!("TerminationByKubelet")));
    assert!(ended["status"]["containerStatuses"][0]["state"]["terminated"].is_object(), "{ended}");
}

/// The first token lasts two seconds: it is renewed before.
#[tokio::test]
async fn a_token_in_a_volume_is_renewed_and_outlives_the_worker() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let first = agent(directory.path(), &api).await;
    let mut web = pod("web", "hello:1", "Always");
    web["spec"]["serviceAccountName"] = json!("cart");
    web["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}]}}]);
    api.put(&path("web"), web);
    let file = directory.path().join("volumes/uid-web/t/token");
    let token = || std::fs::read_to_string(&file).unwrap_or_default();
    let ready = api.until(&path("web"), is_ready).await;
    while !token().starts_with("2 ") {
        tokio::task::yield_now().await;
    }
    assert_eq!(token(), "2 for \"vault\" of \"web\"");
    first.shutdown().await;
    api.is_down.store(true, Ordering::SeqCst);
    let second = agent(directory.path(), &api).await;
    // The token that was kept is good enough while there is no API.
    let context = second.context();
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(ready).expect("a pod");
    let kept = context.tokens.fetch(&pod).await.expect("a token");
    assert_eq!(kept[0].text, "2 for \"vault\" of \"web\"");
    second.shutdown().await;
}

#[tokio::test]
async fn an_unsigned_image_waits_and_says_which_policy_wants_it_signed() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    api.put(NAMESPACE, namespace(&Signer::p256()));
    let agent = agent(directory.path(), &api).await;
    api.put(&path("plain"), pod("plain", "hello:1", "Always"));
    api.put(&path("signed"), pod("signed", "hello-signed:1", "Always"));
    api.until(&path("signed"), is_ready).await;
    let waiting = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let plain = api.until(&path("plain"), |p| waiting(p)["reason"] == "SignatureValidationFailed").await;
    let wanted = "hello:1 is not signed; the namespace \"default\" wants a signature by a key of its annotation shoal.dev/image-public-keys";
    assert_eq!(waiting(&plain)["message"], wanted);
    agent.shutdown().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_starts_nothing() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let mut broken = namespace(&Signer::p256());
    broken["metadata"]["annotations"]["shoal.dev/image-public-keys"] = json!("cosign.pub");
    api.put(NAMESPACE, broken);
    let agent = agent(directory.path(), &api).await;
    api.put(&path("signed"), pod("signed", "hello-signed:1", "Always"));
    let waiting = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = api.until(&path("signed"), |p| waiting(p)["reason"] == "SignatureValidationFailed").await;
    let message = waiting(&pod)["message"].as_str().unwrap_or_default().to_owned();
    assert!(
        message.contains("hello-signed:1") && message.contains("metadata.annotations[shoal.dev/image-public-keys]"),
        "{message}"
    );
    agent.shutdown().await;
}

/// What runs goes on; what starts again is verified again, also by a worker that has no server to ask.
#[tokio::test]
async fn a_policy_that_changes_counts_for_what_starts_next() {
    let (directory, api) = (tempfile::tempdir().expect("directory"), Api::default());
    let (old, new) = (Signer::p256(), Signer::ed25519());
    api.put(NAMESPACE, namespace(&old));
    let first = agent(directory.path(), &api).await;
    api.put(&path("web"), pod("web", "hello-signed:1", "Always"));
    let ready = api.until(&path("web"), is_ready).await;
    let web: k8s_openapi::api::core::v1::Pod = serde_json::from_value(ready.clone()).expect("a pod");
    let context = first.context();
    let is_verified = || crate::container::is_verified(context, &web, "c");
    assert!(is_verified().await);
    api.put(NAMESPACE, namespace(&new));
    while is_verified().await {
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&first, &ready).await, "hi");
    let signers = context.image_policies.signers(&web, "hello-signed:1").await;
    let mut exempt = namespace(&new);
    exempt["metadata"]["annotations"]["shoal.dev/unsigned-images"] = json!("debug/* hello-signed");
    api.put(NAMESPACE, exempt);
    while !is_verified().await {
        tokio::task::yield_now().await;
    }
    assert_eq!(context.image_policies.signers(&web, "other:1").await, signers);
    first.shutdown().await;

    api.is_down.store(true, Ordering::SeqCst);
    let second = agent(directory.path(), &api).await;
    let policies = &second.context().image_policies;
    assert_eq!(policies.signers(&web, "other:1").await, signers);
    assert_eq!(policies.signers(&web, "hello-signed:1").await, Ok(None));
    second.shutdown().await;
}
