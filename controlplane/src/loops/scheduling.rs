//! The scheduler's loop: pods without a node are placed as soon as they appear, and again when something makes room.

use std::collections::BTreeMap;
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
    /// Pods that want a node and were not looked at yet.
    new: BTreeMap<ObjectKey, Arc<Pod>>,
    /// Pods that no node can take at present.
    refused: BTreeMap<ObjectKey, Arc<Pod>>,
    /// Pods that were placed, as long as the cache does not show it: by uid, with the pod and the node.
    assumed: BTreeMap<String, (Arc<Pod>, String)>,
    /// Pods whose node was chosen and whose claims get their volumes there, with the node: their room is kept for them.
    awaiting: BTreeMap<ObjectKey, (Arc<Pod>, String)>,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
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
        new: BTreeMap::new(),
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
        self.new.clear();
        self.refused.clear();
        self.awaiting.clear();
        let present = self.observed.pods.snapshot();
        self.assumed.retain(|uid, (pod, _)| {
            let now = present.get(&key_of(&**pod));
            now.is_some_and(|now| now.metadata.uid.as_ref() == Some(uid) && wants_node(now))
        });
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
        self.awaiting.remove(&key);
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
                let uid = known.metadata.uid.as_deref().unwrap_or_default();
                self.assumed.remove(uid);
            }
        }
    }

    fn consider(&mut self, key: ObjectKey, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if wants_node(&pod) && !self.assumed.contains_key(uid) {
            self.new.insert(key, pod);
        }
    }

    fn retry_refused(&mut self) {
        self.new.append(&mut self.refused);
        let awaiting = std::mem::take(&mut self.awaiting);
        self.new.extend(awaiting.into_iter().map(|(key, (pod, _))| (key, pod)));
    }

    fn place_new(&mut self) {
        if self.new.is_empty() || self.writes.len() >= IN_FLIGHT {
            return;
        }
        let nodes = self.observed.nodes.snapshot();
        let pods = self.observed.pods.snapshot();
        let mut cluster = Snapshot::new(nodes.values().cloned(), pods.values().cloned()).with_storage(self.storage());
        for (pod, node) in self.assumed.values().chain(self.awaiting.values()) {
            if pods.get(&key_of(&**pod)).is_none_or(|shown| !has_node(shown)) {
                cluster.add(pod, node);
            }
        }
        let mut waiting: Vec<(ObjectKey, Arc<Pod>)> = std::mem::take(&mut self.new).into_iter().collect();
        waiting.sort_by_key(|(_, pod)| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        for (key, pod) in waiting {
            if self.writes.len() >= IN_FLIGHT {
                self.new.insert(key, pod);
                continue;
            }
            match place(&pod, &cluster) {
                Ok(node) => {
                    cluster.add(&pod, &node.0);
                    let open = cluster.storage().open_claims(&pod);
                    if !open.is_empty() {
                        self.select_node(&pod, open, &node.0);
                        self.awaiting.insert(key, (pod, node.0));
                        continue;
                    }
                    let uid = pod.metadata.uid.clone().unwrap_or_default();
                    self.assumed.insert(uid.clone(), (pod.clone(), node.0.clone()));
                    self.writes.push(Box::pin(bind(self.client.clone(), self.recorder.clone(), pod, node.0)));
                }
                Err(refusal) => {
                    self.refuse(&pod, &refusal.to_string());
                    self.refused.insert(key, pod);
                }
            }
        }
    }

    fn storage(&self) -> Storage {
        let (claims, volumes) = (self.observed.claims.snapshot(), self.observed.volumes.snapshot());
        let classes = self.observed.storage_classes.snapshot();
        Storage::new(claims.values().cloned(), volumes.values().cloned(), classes.values().cloned())
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
        self.assumed.remove(written.pod.metadata.uid.as_deref().unwrap_or_default());
        // The cache says what the pod is by now; if it still wants a node, it is looked at again.
        let key = key_of(&*written.pod);
        self.awaiting.remove(&key);
        if let Some(pod) = self.observed.pods.get(&key.namespace, &key.name) {
            self.consider(key, pod);
        }
    }
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
