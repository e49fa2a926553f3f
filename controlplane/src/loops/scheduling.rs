//! The scheduler's loop: pods without a node are placed as soon as they appear, and again when something makes room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;
use shoal_client::{Client, ClientError, EventKind, ObjectKey, Patch, Recorder, Update, key_of};
use shoal_controllers::is_active;
use shoal_scheduler::storage::SELECTED_NODE;
use shoal_scheduler::{Snapshot, Storage, place};
use tokio::sync::broadcast::error::RecvError;

use super::observed::Observed;

/// How long to leave a pod alone whose binding failed.
const RETRY: Duration = Duration::from_secs(1);

/// How many writes may be on their way.
const IN_FLIGHT: usize = 256;

struct Scheduler {
    client: Client,
    observed: Observed,
    recorder: Recorder,
    /// The cluster as far as `pods` and `nodes` have told, with what is assumed and awaiting.
    cluster: Snapshot,
    /// What the storage in `cluster` was made from.
    storage: Option<[u64; 3]>,
    /// Pods that want a node and were not looked at yet.
    new: Waiting,
    /// Pods that no node can take at present.
    refused: BTreeMap<ObjectKey, Arc<Pod>>,
    /// Pods that were placed, as long as the cache does not show it: by uid, with the pod and the node.
    assumed: BTreeMap<String, (Arc<Pod>, String)>,
    /// Pods whose node was chosen and whose claims get their volumes there, with the node: their room is kept for them.
    awaiting: BTreeMap<ObjectKey, (Arc<Pod>, String)>,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
}

/// Pods that wait for their turn: who is oldest comes first.
#[derive(Default)]
struct Waiting {
    pods: BTreeMap<ObjectKey, Arc<Pod>>,
    order: BTreeSet<(Option<Timestamp>, ObjectKey)>,
}

/// What became of a write.
struct Written {
    pod: Arc<Pod>,
    outcome: Result<(), ClientError>,
    /// Whether the pod waits for it.
    is_placing: bool,
}

/// Places pods, for ever.
pub(crate) async fn run(client: Client, observed: Observed, recorder: Recorder) {
    let mut pods = observed.pods.updates();
    let mut nodes = observed.nodes.changed();
    let (mut claims, mut volumes) = (observed.claims.changed(), observed.volumes.changed());
    let mut classes = observed.storage_classes.changed();
    let mut scheduler = Scheduler {
        client,
        observed,
        recorder,
        cluster: Snapshot::default(),
        storage: None,
        new: Waiting::default(),
        refused: BTreeMap::new(),
        assumed: BTreeMap::new(),
        awaiting: BTreeMap::new(),
        writes: FuturesUnordered::new(),
    };
    scheduler.look_at_all();
    loop {
        // Everything that is known by now counts before anything is decided.
        while let Ok(update) = pods.try_recv() {
            scheduler.take_in(&update);
        }
        scheduler.place_new();
        tokio::select! {
            update = pods.recv() => match update {
                Ok(update) => scheduler.take_in(&update),
                Err(RecvError::Lagged(_)) => scheduler.look_at_all(),
                Err(RecvError::Closed) => return,
            },
            changed = nodes.changed() => match changed {
                Ok(()) => scheduler.retry_refused(),
                Err(_) => return,
            },
            Ok(()) = claims.changed() => scheduler.retry_refused(),
            Ok(()) = volumes.changed() => scheduler.retry_refused(),
            Ok(()) = classes.changed() => scheduler.retry_refused(),
            Some(written) = scheduler.writes.next() => scheduler.take_in_written(written),
        }
    }
}

impl Scheduler {
    fn look_at_all(&mut self) {
        self.new = Waiting::default();
        self.refused.clear();
        self.awaiting.clear();
        let present = self.observed.pods.snapshot();
        self.cluster = Snapshot::new([], present.values().cloned());
        self.storage = None;
        self.assumed.retain(|uid, (pod, _)| {
            let now = present.get(&key_of(&**pod));
            now.is_some_and(|now| now.metadata.uid.as_ref() == Some(uid) && wants_node(now))
        });
        for (pod, node) in self.assumed.values() {
            self.cluster.add(pod, node);
        }
        for (key, pod) in &present {
            self.consider(key.clone(), pod.clone());
        }
    }

    fn take_in(&mut self, update: &Update<Pod>) {
        let Some(known) = update.current.as_ref().or(update.previous.as_ref()) else { return };
        let key = key_of(&**known);
        let was = update.previous.as_ref().is_some_and(|pod| has_node(pod) && is_active(pod));
        let is = update.current.as_ref().is_some_and(|pod| has_node(pod) && is_active(pod));
        if was && !is {
            self.retry_refused();
        }
        self.new.remove(&key);
        self.give_up_awaiting(&key);
        self.count(update);
        let refused = self.refused.remove(&key);
        match &update.current {
            Some(pod) if wants_node(pod) => match refused {
                // Only its status changed, which we did: the answer would be the same.
                Some(before) if before.spec == pod.spec && before.metadata.uid == pod.metadata.uid => {
                    self.refused.insert(key, pod.clone());
                }
                _ => self.consider(key, pod.clone()),
            },
            _ => {
                self.assumed.remove(uid_of(known));
            }
        }
    }

    /// Counts what is shown of a pod, unless it is known already where it goes.
    fn count(&mut self, update: &Update<Pod>) {
        if let Some(pod) = &update.previous {
            let is_other = update.current.as_ref().is_none_or(|current| uid_of(current) != uid_of(pod));
            if is_other {
                self.assumed.remove(uid_of(pod));
                self.cluster.remove(pod);
            }
        }
        if let Some(pod) = &update.current
            && (has_node(pod) || !self.assumed.contains_key(uid_of(pod)))
        {
            self.cluster.observe(pod);
        }
    }

    fn consider(&mut self, key: ObjectKey, pod: Arc<Pod>) {
        if wants_node(&pod) && !self.assumed.contains_key(uid_of(&pod)) {
            self.new.insert(key, pod);
        }
    }

    fn retry_refused(&mut self) {
        for (key, pod) in std::mem::take(&mut self.refused) {
            self.new.insert(key, pod);
        }
        for (key, (pod, _)) in std::mem::take(&mut self.awaiting) {
            self.cluster.remove(&pod);
            self.new.insert(key, pod);
        }
    }

    fn give_up_awaiting(&mut self, key: &ObjectKey) {
        if let Some((pod, _)) = self.awaiting.remove(key) {
            self.cluster.remove(&pod);
        }
    }

    fn place_new(&mut self) {
        if self.new.is_empty() || self.writes.len() >= IN_FLIGHT {
            return;
        }
        self.cluster.set_nodes(self.observed.nodes.snapshot().values().cloned());
        self.look_at_storage();
        while self.writes.len() < IN_FLIGHT
            && let Some((key, pod)) = self.new.first()
        {
            match place(&pod, &self.cluster) {
                Ok(node) => {
                    self.cluster.add(&pod, &node.0);
                    let open = self.cluster.storage().open_claims(&pod);
                    if !open.is_empty() {
                        self.select_node(&pod, open, &node.0);
                        self.awaiting.insert(key, (pod, node.0));
                        continue;
                    }
                    self.assumed.insert(uid_of(&pod).to_owned(), (pod.clone(), node.0.clone()));
                    self.writes.push(Box::pin(bind(self.client.clone(), self.recorder.clone(), pod, node.0)));
                }
                Err(refusal) => {
                    self.refuse(&pod, &refusal.to_string());
                    self.refused.insert(key, pod);
                }
            }
        }
    }

    /// Takes the storage as it is now, if it is another than before.
    fn look_at_storage(&mut self) {
        let Observed { claims, volumes, storage_classes: classes, .. } = &self.observed;
        let revisions = [claims.revision(), volumes.revision(), classes.revision()];
        if self.storage.replace(revisions) != Some(revisions) {
            let (claims, volumes, classes) = (claims.snapshot(), volumes.snapshot(), classes.snapshot());
            let storage = Storage::new(claims.values().cloned(), volumes.values().cloned(), classes.values().cloned());
            self.cluster.set_storage(storage);
        }
    }

    /// Says for which node the claims of `pod` are to get their volumes; the pod goes there when they have them.
    fn select_node(&mut self, pod: &Arc<Pod>, claims: Vec<Arc<PersistentVolumeClaim>>, node: &str) {
        for claim in claims {
            let selected = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
            if selected.map(String::as_str) != Some(node) {
                self.writes.push(Box::pin(select_node(self.client.clone(), pod.clone(), claim, node.to_owned())));
            }
        }
    }

    fn refuse(&mut self, pod: &Arc<Pod>, message: &str) {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let said = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
        if said.is_some_and(|said| said.status == "False" && said.message.as_deref() == Some(message)) {
            return;
        }
        self.recorder.record(&**pod, EventKind::Warning, "FailedScheduling", message);
        self.writes.push(Box::pin(say_unschedulable(self.client.clone(), pod.clone(), message.to_owned())));
    }

    fn take_in_written(&mut self, written: Written) {
        let Err(error) = written.outcome else { return };
        tracing::debug!(pod = %key_of(&*written.pod), %error, "a pod was not written");
        if !written.is_placing {
            return;
        }
        // The cache says what the pod is by now; if it still wants a node, it is looked at again.
        let key = key_of(&*written.pod);
        let is_assumed = self.assumed.remove(uid_of(&written.pod)).is_some();
        self.give_up_awaiting(&key);
        let shown = self.observed.pods.get(&key.namespace, &key.name);
        let shown = shown.filter(|shown| uid_of(shown) == uid_of(&written.pod));
        if is_assumed && shown.as_ref().is_none_or(|shown| !has_node(shown)) {
            self.cluster.remove(&written.pod);
        }
        if let Some(pod) = shown {
            self.consider(key, pod);
        }
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn insert(&mut self, key: ObjectKey, pod: Arc<Pod>) {
        self.remove(&key);
        self.order.insert((age_of(&pod), key.clone()));
        self.pods.insert(key, pod);
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(pod) = self.pods.remove(key) {
            self.order.remove(&(age_of(&pod), key.clone()));
        }
    }

    /// Takes out the one that has waited longest.
    fn first(&mut self) -> Option<(ObjectKey, Arc<Pod>)> {
        let (_, key) = self.order.pop_first()?;
        self.pods.remove_entry(&key)
    }
}

fn age_of(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn uid_of(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn has_node(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
}

fn wants_node(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let is_ours = spec.scheduler_name.as_deref().is_none_or(|name| name.is_empty() || name == "default-scheduler");
    is_ours && is_active(pod) && !has_node(pod) && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

async fn bind(client: Client, recorder: Recorder, pod: Arc<Pod>, node: String) -> Written {
    let key = key_of(&*pod);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let outcome = client.bind(&key.namespace, &key.name, &uid, &node).await;
    match &outcome {
        Ok(()) => {
            let message = format!("Successfully assigned {key} to {node}");
            recorder.record(&*pod, EventKind::Normal, "Scheduled", &message);
        }
        // A while, so that what keeps failing is not tried without a pause.
        Err(_) => tokio::time::sleep(RETRY).await,
    }
    Written { pod, outcome, is_placing: true }
}

async fn select_node(client: Client, pod: Arc<Pod>, claim: Arc<PersistentVolumeClaim>, node: String) -> Written {
    let key = key_of(&*claim);
    let patch = Patch::Merge(json!({"metadata": {
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
        "annotations": {SELECTED_NODE: node},
    }}));
    let outcome = client.patch::<PersistentVolumeClaim>(&key.namespace, &key.name, &patch).await.map(drop);
    if outcome.is_err() {
        tokio::time::sleep(RETRY).await;
    }
    Written { pod, outcome, is_placing: true }
}

async fn say_unschedulable(client: Client, pod: Arc<Pod>, message: String) -> Written {
    let key = key_of(&*pod);
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let patch = json!({
        "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": [condition]},
    });
    let outcome = client.patch_status::<Pod>(&key.namespace, &key.name, &Patch::Strategic(patch)).await.map(drop);
    Written { pod, outcome, is_placing: false }
}
