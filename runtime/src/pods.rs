//! The pods of this node: one worker each, by uid.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use shoal_client::Update;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::pod::observed::Doom;
use crate::pod::{Happening, spec};
use crate::pod_record::PodRecord;
use crate::pod_view::PodView;
use crate::static_pods::mirror::full_name;
use crate::worker::{self, Message, WorkerHandle};

/// Who wants a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The API.
    Api,
    /// A manifest of this node.
    File,
}

impl Origin {
    fn of(pod: &Pod) -> Origin {
        if spec::is_static(pod) { Origin::File } else { Origin::Api }
    }
}

/// All workers.
#[derive(Default)]
pub struct Pods {
    workers: Mutex<BTreeMap<String, WorkerHandle>>,
    /// The uid of the mirror that each static pod had last, by the pod's own.
    mirrors: Mutex<BTreeMap<String, String>>,
    /// Whether the manifests have been read.
    are_files_known: AtomicBool,
}

impl Pods {
    /// Takes a pod that was kept on disk.
    pub fn restore(&self, context: &Arc<Context>, record: PodRecord) {
        let uid = spec::uid(&record.pod).to_owned();
        if let Some(address) = record.observed.address {
            context.addresses.lock().unwrap_or_else(PoisonError::into_inner).keep(address, &uid);
        }
        let pod = Arc::new(record.pod.clone());
        let handle = worker::spawn(context, &pod, Some(record));
        self.lock().insert(uid, handle);
    }

    /// Takes all that one origin wants: new pods get a worker, known ones the new object, and those of it that are gone are told so.
    ///
    /// A manifest that changed is another pod of the same name, which begins when the one before has ended.
    pub async fn synchronize(&self, context: &Arc<Context>, wanted: &[Arc<Pod>], origin: Origin) {
        let uids: HashSet<&str> = wanted.iter().map(|pod| spec::uid(pod)).collect();
        let gone = {
            let mut workers = self.lock();
            workers.retain(|_, worker| !worker.messages.is_closed());
            for pod in wanted {
                if origin == Origin::Api || !has_namesake(&workers, pod) {
                    take(&mut workers, context, pod);
                }
            }
            let is_gone = |worker: &WorkerHandle| {
                let pod = worker.pod.borrow();
                Origin::of(&pod) == origin && !uids.contains(spec::uid(&pod))
            };
            let gone = workers.values().filter(|worker| is_gone(worker));
            gone.map(|worker| worker.messages.clone()).collect::<Vec<_>>()
        };
        if origin == Origin::File {
            self.are_files_known.store(true, Ordering::SeqCst);
        }
        tell_gone(gone).await;
    }

    /// Takes what changed of the pods that the API wants. It takes the time of the changes, not of all pods.
    pub async fn follow(&self, context: &Arc<Context>, changes: &[Update<Pod>]) {
        let mut gone = Vec::new();
        {
            let mut workers = self.lock();
            for Update { previous, current } in changes {
                let uid = previous.as_ref().map(|pod| spec::uid(pod));
                if let Some(uid) = uid.filter(|uid| current.as_ref().is_none_or(|pod| spec::uid(pod) != *uid)) {
                    gone.extend(workers.get(uid).map(|worker| worker.messages.clone()));
                }
                if let Some(pod) = current {
                    take(&mut workers, context, pod);
                }
            }
            if !gone.is_empty() {
                workers.retain(|_, worker| !worker.messages.is_closed());
            }
        }
        tell_gone(gone).await;
    }

    /// The static pods, those that are ending included; none before the manifests have been read.
    pub fn static_pods(&self) -> Option<Vec<Arc<Pod>>> {
        let is_known = self.are_files_known.load(Ordering::SeqCst);
        is_known.then(|| self.list().into_iter().filter(|pod| spec::is_static(pod)).collect())
    }

    /// Tells the workers of static pods whose mirror is a new one.
    pub async fn mirrors_changed(&self, mirrors: &[Arc<Pod>]) {
        let mut known = BTreeMap::new();
        let mut changed = Vec::new();
        for mirror in mirrors {
            let Some(hash) = spec::annotation(mirror, spec::CONFIG_MIRROR) else { continue };
            known.insert(hash.to_owned(), spec::uid(mirror).to_owned());
        }
        {
            let mut before = self.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
            let workers = self.lock();
            let new = known.iter().filter(|(hash, uid)| before.get(*hash) != Some(*uid));
            changed.extend(new.filter_map(|(hash, _)| workers.get(hash).map(|worker| worker.messages.clone())));
            // One without a worker yet is told when it has one.
            known.retain(|hash, _| workers.contains_key(hash));
            *before = known;
        }
        for worker in changed {
            let _ = worker.send(Message::TellAgain).await;
        }
    }

    /// Tells the workers of these pods that a ConfigMap or Secret of theirs changed.
    pub async fn sources_changed(&self, uids: &[String]) {
        let workers: Vec<_> = uids.iter().filter_map(|uid| self.lock().get(uid).map(|w| w.messages.clone())).collect();
        for worker in workers {
            let _ = worker.send(Message::Happened(Box::new(Happening::SourcesChanged))).await;
        }
    }

    /// The pods as their workers see them.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.views().into_iter().map(|view| view.pod).collect()
    }

    /// What the workers make of their pods.
    pub fn views(&self) -> Vec<PodView> {
        self.lock().values().filter(|w| !w.messages.is_closed()).map(|worker| worker.view.borrow().clone()).collect()
    }

    /// The pods that have not come to their end.
    pub fn active(&self) -> Vec<Arc<Pod>> {
        self.views().into_iter().filter(|view| !view.is_over()).map(|view| view.pod).collect()
    }

    /// Whether something of the pod runs.
    pub fn is_busy(&self, uid: &str) -> bool {
        self.lock().get(uid).is_some_and(|worker| !worker.messages.is_closed() && !worker.view.borrow().is_quiet)
    }

    /// Ends a pod for a reason of the node's.
    pub async fn doom(&self, uid: &str, doom: Doom) {
        let worker = self.lock().get(uid).map(|worker| worker.messages.clone());
        if let Some(worker) = worker {
            // A worker that is over by now needs no word.
            let _ = worker.send(Message::Happened(Box::new(Happening::Doomed(doom)))).await;
        }
    }

    /// Waits until nothing of these pods runs and the API knows it, as far as it can be told. Cancel safe.
    pub async fn ended(&self, uids: &[String]) {
        let views: Vec<_> = uids.iter().filter_map(|uid| self.lock().get(uid).map(|w| w.view.clone())).collect();
        for mut view in views {
            // One whose worker is over has ended.
            let _ = view.wait_for(|view| view.is_quiet && view.is_reported).await;
        }
    }

    /// A pod by its name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.list()
            .into_iter()
            .filter(|pod| spec::namespace(pod) == namespace && spec::name(pod) == name)
            .max_by_key(|pod| (!spec::is_deleted(pod), pod.metadata.creation_timestamp.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, WorkerHandle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the pod to its worker, or to a new one.
fn take(workers: &mut BTreeMap<String, WorkerHandle>, context: &Arc<Context>, pod: &Arc<Pod>) {
    let uid = spec::uid(pod);
    match workers.get(uid) {
        Some(worker) if !worker.messages.is_closed() => update(worker, pod),
        _ if uid.is_empty() => {}
        _ => {
            workers.insert(uid.to_owned(), worker::spawn(context, pod, None));
        }
    }
}

/// Whether another manifest's pod has its name still.
fn has_namesake(workers: &BTreeMap<String, WorkerHandle>, pod: &Pod) -> bool {
    !workers.contains_key(spec::uid(pod))
        && workers.values().any(|worker| {
            let known = worker.pod.borrow();
            Origin::of(&known) == Origin::File && full_name(&known) == full_name(pod)
        })
}

async fn tell_gone(workers: Vec<mpsc::Sender<Message>>) {
    for worker in workers {
        // A worker that is over by now needs no word.
        let _ = worker.send(Message::Happened(Box::new(Happening::Gone))).await;
    }
}

fn update(worker: &WorkerHandle, pod: &Arc<Pod>) {
    worker.pod.send_if_modified(|known| {
        let is_new = known.metadata.resource_version != pod.metadata.resource_version;
        if is_new {
            *known = Arc::clone(pod);
        }
        is_new
    });
}
