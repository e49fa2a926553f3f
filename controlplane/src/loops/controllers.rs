//! Which controller looks at what, and which changes make it look.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use shoal_client::{Cache, Client, Object, ObjectKey, Recorder, key_of};
use shoal_controllers::{
    Action, deployment, endpoints, garbage, namespace, node, replica_set, selects, service_account,
};
use shoal_link::tasks::Tasks;
use tokio::sync::broadcast::error::RecvError;

use super::observed::{Observed, has_all, within};
use super::queue::Queue;
use super::{Settings, act, storage};

/// How many keys of one controller are looked at side by side.
const LOOKERS: usize = 8;

/// A look that is shorter needs no rest.
const SHORT_LOOK: Duration = Duration::from_millis(1);

/// How many times as long as the look its key rests: a fifth of a core at most goes into the looks at one key.
const REST_FACTOR: u32 = 4;

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long changes of ownership are gathered before all of it is looked at.
const GATHER: Duration = Duration::from_millis(100);

/// The namespace of the Leases that nodes renew.
const NODE_LEASES: &str = "kube-node-lease";

/// The queues of all controllers.
#[derive(Default)]
pub(super) struct Queues {
    deployments: Arc<Queue>,
    replica_sets: Arc<Queue>,
    services: Arc<Queue>,
    namespaces: Arc<Queue>,
    accounts: Arc<Queue>,
    nodes: Arc<Queue>,
    garbage: Arc<Queue>,
    pub(super) claims: Arc<Queue>,
    pub(super) volumes: Arc<Queue>,
    pub(super) pods: Arc<Queue>,
}

/// What was heard of the nodes, by this process' clock: those of the nodes may be wrong.
#[derive(Default)]
struct Hearing {
    /// When each node was last heard of.
    nodes: BTreeMap<String, Timestamp>,
    /// When nobody was to be heard for the last time.
    nobody_at: Option<Timestamp>,
}

type Heard = Arc<Mutex<Hearing>>;

/// Starts all controllers.
pub(crate) fn start(tasks: &Tasks, client: &Client, observed: &Observed, settings: &Settings, recorder: &Recorder) {
    let queues = Arc::new(Queues::default());
    let heard = Heard::default();
    let starter = Starter { tasks, client, observed, recorder };
    starter.look("deployment", &queues.deployments, |observed, key, now| {
        let Some(found) = observed.deployments.get(&key.namespace, &key.name) else { return Vec::new() };
        let sets = within(&observed.replica_sets.snapshot(), &key.namespace);
        deployment::reconcile(&found, &references(&sets), now)
    });
    starter.look("replica set", &queues.replica_sets, |observed, key, now| {
        let Some(found) = observed.replica_sets.get(&key.namespace, &key.name) else { return Vec::new() };
        let pods = within(&observed.pods.snapshot(), &key.namespace);
        replica_set::reconcile(&found, &references(&pods), now)
    });
    starter.look("endpoints", &queues.services, |observed, key, _| {
        let Some(found) = observed.services.get(&key.namespace, &key.name) else { return Vec::new() };
        let pods = within(&observed.pods.snapshot(), &key.namespace);
        let slices = within(&observed.endpoint_slices.snapshot(), &key.namespace);
        let old = observed.endpoints.get(&key.namespace, &key.name);
        endpoints::reconcile(&found, &references(&pods), &references(&slices), old.as_deref())
    });
    starter.look("namespace", &queues.namespaces, |observed, key, _| {
        let Some(found) = observed.namespaces.get("", &key.name) else { return Vec::new() };
        if found.metadata.deletion_timestamp.is_none() {
            return Vec::new();
        }
        let contents = observed.things(&key.name);
        namespace::reconcile(&found, &references_of(&contents))
    });
    let ca_pem = settings.ca_pem.clone();
    starter.look("service account", &queues.accounts, move |observed, key, _| {
        let Some(found) = observed.namespaces.get("", &key.name) else { return Vec::new() };
        let account = observed.service_accounts.get(&key.name, "default");
        let root_ca = observed.config_maps.get(&key.name, service_account::ROOT_CA);
        service_account::reconcile(&found, account.as_deref(), root_ca.as_deref(), &ca_pem)
    });
    let (patience, last) = (settings.patience, heard.clone());
    starter.look("node", &queues.nodes, move |observed, key, now| look_at_node(observed, key, &last, patience, now));
    starter.look("garbage", &queues.garbage, |observed, _, _| {
        garbage::reconcile(&observed.things(""), &Observed::kinds())
    });
    storage::start(&starter, &queues);
    feed(tasks, observed, &queues, &heard);
    storage::feed(tasks, observed, &queues);
}

/// How long a key is left alone after a look that took this long: a controller that looks at thousands of objects whenever one of
/// them changes would otherwise do nothing else, and take the time of those that write them.
fn rest_after(look: Duration) -> Duration {
    if look < SHORT_LOOK { Duration::ZERO } else { look.saturating_mul(REST_FACTOR).min(LONGEST_REST) }
}

fn look_at_node(
    observed: &Observed,
    key: &ObjectKey,
    heard: &Heard,
    patience: node::Patience,
    now: Timestamp,
) -> Vec<Action> {
    let all = observed.pods.snapshot();
    let is_here = |pod: &&Arc<Pod>| node_of(pod) == key.name;
    let pods: Vec<Arc<Pod>> = all.values().filter(is_here).cloned().collect();
    let Some(found) = observed.nodes.get("", &key.name) else {
        return node::pods_of_no_node(&key.name, &references(&pods));
    };
    let nodes = observed.nodes.snapshot();
    let heard = {
        let mut hearing = heard.lock().unwrap_or_else(PoisonError::into_inner);
        for key in nodes.keys() {
            hearing.nodes.entry(key.name.clone()).or_insert(now);
        }
        hearing.nodes.retain(|name, _| nodes.contains_key(&ObjectKey::new("", name)));
        let all = nodes.iter().map(|(key, node)| (&**node, hearing.nodes.get(&key.name).copied().unwrap_or(now)));
        if node::is_nobody_heard(all, patience, now) {
            hearing.nobody_at = Some(now);
        }
        let last = hearing.nodes.get(&key.name).copied().unwrap_or(now);
        node::Heard { last, nobody_at: hearing.nobody_at }
    };
    node::reconcile(&found, heard, &references(&pods), patience, now)
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

pub(super) fn references<K>(objects: &[Arc<K>]) -> Vec<&K> {
    objects.iter().map(|object| &**object).collect()
}

fn references_of<T>(things: &[T]) -> Vec<&T> {
    things.iter().collect()
}

pub(super) struct Starter<'a> {
    tasks: &'a Tasks,
    client: &'a Client,
    observed: &'a Observed,
    recorder: &'a Recorder,
}

impl Starter<'_> {
    /// Starts the lookers of one controller.
    pub(super) fn look<F>(&self, name: &'static str, queue: &Arc<Queue>, decide: F)
    where
        F: Fn(&Observed, &ObjectKey, Timestamp) -> Vec<Action> + Send + Sync + 'static,
    {
        let decide = Arc::new(decide);
        for _ in 0..LOOKERS {
            let (client, observed, recorder) = (self.client.clone(), self.observed.clone(), self.recorder.clone());
            let (queue, decide) = (queue.clone(), decide.clone());
            self.tasks.spawn(name, async move {
                loop {
                    let key = queue.next().await;
                    // A controller that panics over one key is a bug, and no reason to forget all others.
                    let look = AssertUnwindSafe(|| decide(&observed, &key, Timestamp::now()));
                    let began = Instant::now();
                    let Ok(actions) = std::panic::catch_unwind(look) else {
                        tracing::error!(controller = name, %key, "a controller panicked");
                        queue.done(&key, false, Duration::ZERO);
                        continue;
                    };
                    let rest = rest_after(began.elapsed());
                    if !actions.is_empty() {
                        tracing::debug!(controller = name, %key, ?actions, "a controller acts");
                    }
                    let done = act::all(&client, &recorder, actions).await;
                    // Who looks again must see what was done.
                    for (kind, revision) in &done.written {
                        observed.reflects(kind, *revision).await;
                    }
                    if let Some(at) = done.look_again {
                        let pause = at.duration_since(Timestamp::now());
                        // Not at once, even if the moment has passed meanwhile.
                        queue.add_in(
                            key.clone(),
                            Duration::try_from(pause).unwrap_or_default() + Duration::from_millis(5),
                        );
                    }
                    queue.done(&key, !done.is_incomplete, rest);
                }
            });
        }
    }
}

/// Turns every change into keys to look at.
fn feed(tasks: &Tasks, observed: &Observed, queues: &Arc<Queues>, heard: &Heard) {
    let seen = observed.clone();
    follow(tasks, queues, observed, &observed.deployments, |queues, deployment| {
        queues.deployments.add(key_of(deployment))
    });
    follow(tasks, queues, observed, &observed.replica_sets, move |queues, set| {
        queues.replica_sets.add(key_of(set));
        match controller(set, "Deployment") {
            Some(owner) => queues.deployments.add(owner),
            None => deployments_of(&seen, set).into_iter().for_each(|key| queues.deployments.add(key)),
        }
    });
    let seen = observed.clone();
    follow(tasks, queues, observed, &observed.pods, move |queues, pod| {
        match controller(pod, "ReplicaSet") {
            Some(owner) => queues.replica_sets.add(owner),
            None => replica_sets_of(&seen, pod).into_iter().for_each(|key| queues.replica_sets.add(key)),
        }
        services_of(&seen, pod).into_iter().for_each(|key| queues.services.add(key));
        if !node_of(pod).is_empty() {
            queues.nodes.add(ObjectKey::new("", node_of(pod)));
        }
    });
    follow(tasks, queues, observed, &observed.services, |queues, service| queues.services.add(key_of(service)));
    follow(tasks, queues, observed, &observed.endpoint_slices, |queues, slice| {
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get(endpoints::SERVICE)) {
            queues.services.add(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service));
        }
    });
    follow(tasks, queues, observed, &observed.endpoints, |queues, endpoints| queues.services.add(key_of(endpoints)));
    follow(tasks, queues, observed, &observed.nodes, |queues, node| queues.nodes.add(key_of(node)));
    let heard = heard.clone();
    let seen = observed.clone();
    follow(tasks, queues, observed, &observed.leases, move |queues, lease| {
        if lease.metadata.namespace.as_deref() != Some(NODE_LEASES) {
            return;
        }
        let name = lease.metadata.name.clone().unwrap_or_default();
        let is_known = seen.nodes.get("", &name).is_some_and(|node| node::is_ready(&node));
        heard.lock().unwrap_or_else(PoisonError::into_inner).nodes.insert(name.clone(), Timestamp::now());
        // A node that is well is looked at when its Lease runs out; one that was not may be back.
        if !is_known {
            queues.nodes.add(ObjectKey::new("", name));
        }
    });
    follow(tasks, queues, observed, &observed.namespaces, |queues, namespace: &Namespace| {
        queues.namespaces.add(key_of(namespace));
        queues.accounts.add(key_of(namespace));
    });
    follow(tasks, queues, observed, &observed.service_accounts, |queues, account| {
        if account.metadata.name.as_deref() == Some("default") {
            queues.accounts.add(ObjectKey::new("", account.metadata.namespace.as_deref().unwrap_or_default()));
        }
    });
    follow(tasks, queues, observed, &observed.config_maps, |queues, config_map| {
        if config_map.metadata.name.as_deref() == Some(service_account::ROOT_CA) {
            queues.accounts.add(ObjectKey::new("", config_map.metadata.namespace.as_deref().unwrap_or_default()));
        }
    });
    follow(tasks, queues, observed, &observed.secrets, |_, _| {});
    follow(tasks, queues, observed, &observed.roles, |_, _| {});
    follow(tasks, queues, observed, &observed.role_bindings, |_, _| {});
}

/// Calls `route` with everything that is there, and with everything that changes, as it was and as it is.
pub(super) fn follow<K: Object>(
    tasks: &Tasks,
    queues: &Arc<Queues>,
    observed: &Observed,
    cache: &Cache<K>,
    route: impl Fn(&Queues, &K) + Send + Sync + 'static,
) {
    let (queues, cache, namespaces) = (queues.clone(), cache.clone(), observed.namespaces.clone());
    let mut updates = cache.updates();
    tasks.spawn("signals", async move {
        let everything = || {
            cache.snapshot().values().for_each(|object| route(&queues, object));
            queues.garbage.add_in(ObjectKey::new("", ""), GATHER);
        };
        everything();
        loop {
            let update = match updates.recv().await {
                Ok(update) => update,
                Err(RecvError::Lagged(_)) => {
                    everything();
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            let (before, after) = (update.previous.as_deref(), update.current.as_deref());
            before.into_iter().chain(after).for_each(|object| route(&queues, object));
            signal_common(&queues, &namespaces, before, after);
        }
    });
}

/// What matters of every kind: ownership, and the contents of namespaces that are being deleted.
fn signal_common<K: Object>(queues: &Queues, namespaces: &Cache<Namespace>, before: Option<&K>, after: Option<&K>) {
    let concerns_owners = match (before, after) {
        (_, None) => true,
        (before, Some(after)) => {
            let metadata = after.metadata();
            let owners = |object: &K| object.metadata().owner_references.clone().unwrap_or_default();
            let is_owned_anew = before.map(owners).unwrap_or_default() != owners(after);
            is_owned_anew
                || (metadata.deletion_timestamp.is_some()
                    && metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty()))
        }
    };
    if concerns_owners {
        queues.garbage.add_in(ObjectKey::new("", ""), GATHER);
    }
    let Some(namespace) = after.or(before).and_then(|object| object.metadata().namespace.clone()) else { return };
    let is_going = |found: Arc<Namespace>| found.metadata.deletion_timestamp.is_some();
    if namespaces.get("", &namespace).is_some_and(is_going) {
        queues.namespaces.add(ObjectKey::new("", namespace));
    }
}

/// The key of the controller of `object`, if it is of this kind.
fn controller<K: Object>(object: &K, kind: &str) -> Option<ObjectKey> {
    let metadata = object.metadata();
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    // One of another kind is nobody's here, and its key leads to nothing.
    let name = if owner.kind == kind { owner.name.as_str() } else { "" };
    Some(ObjectKey::new(metadata.namespace.as_deref().unwrap_or_default(), name))
}

fn deployments_of(observed: &Observed, set: &ReplicaSet) -> Vec<ObjectKey> {
    let all = within(&observed.deployments.snapshot(), set.metadata.namespace.as_deref().unwrap_or_default());
    let selecting = all.iter().filter(|deployment| {
        deployment.spec.as_ref().is_some_and(|spec| selects(&spec.selector, set.metadata.labels.as_ref()))
    });
    selecting.map(|deployment| key_of(&**deployment)).collect()
}

fn replica_sets_of(observed: &Observed, pod: &Pod) -> Vec<ObjectKey> {
    let all = within(&observed.replica_sets.snapshot(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let selecting = all
        .iter()
        .filter(|set| set.spec.as_ref().is_some_and(|spec| selects(&spec.selector, pod.metadata.labels.as_ref())));
    selecting.map(|set| key_of(&**set)).collect()
}

fn services_of(observed: &Observed, pod: &Pod) -> Vec<ObjectKey> {
    let all = within(&observed.services.snapshot(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let selecting = all.iter().filter(|service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| !selector.is_empty() && has_all(selector, pod.metadata.labels.as_ref()))
    });
    selecting.map(|service| key_of(&**service)).collect()
}
