//! The pods of this node: one worker each, by uid.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use crate::context::Context;
use crate::pod::observed::Doom;
use crate::pod::{Happening, spec};
use crate::pod_record::PodRecord;
use crate::pod_view::PodView;
use crate::worker::{self, Message, WorkerHandle};

/// All workers.
#[derive(Default)]
pub struct Pods {
    workers: Mutex<BTreeMap<String, WorkerHandle>>,
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

    /// Takes what the API has: new pods get a worker, known ones the new object, and those that are gone are told so.
    pub async fn synchronize(&self, context: &Arc<Context>, wanted: &[Arc<Pod>]) {
        let mut gone = Vec::new();
        {
            let mut workers = self.lock();
            workers.retain(|_, worker| !worker.messages.is_closed());
            for pod in wanted {
                let uid = spec::uid(pod);
                match workers.get(uid) {
                    Some(worker) => update(worker, pod),
                    None if uid.is_empty() => {}
                    None => {
                        workers.insert(uid.to_owned(), worker::spawn(context, pod, None));
                    }
                }
            }
            for (uid, worker) in workers.iter() {
                if !wanted.iter().any(|pod| spec::uid(pod) == uid) {
                    gone.push(worker.messages.clone());
                }
            }
        }
        for worker in gone {
            // A worker that is over by now needs no word.
            let _ = worker.send(Message::Happened(Happening::Gone)).await;
        }
    }

    /// Tells the workers of these pods that a ConfigMap or Secret of theirs changed.
    pub async fn sources_changed(&self, uids: &[String]) {
        let workers: Vec<_> = uids.iter().filter_map(|uid| self.lock().get(uid).map(|w| w.messages.clone())).collect();
        for worker in workers {
            let _ = worker.send(Message::Happened(Happening::SourcesChanged)).await;
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
            let _ = worker.send(Message::Happened(Happening::Doomed(doom))).await;
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

fn update(worker: &WorkerHandle, pod: &Arc<Pod>) {
    worker.pod.send_if_modified(|known| {
        let is_new = known.metadata.resource_version != pod.metadata.resource_version;
        if is_new {
            *known = Arc::clone(pod);
        }
        is_new
    });
}
