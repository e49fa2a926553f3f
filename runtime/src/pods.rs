//! The pods of this node: one worker each, by uid.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use crate::context::Context;
use crate::pod::{Happening, spec};
use crate::pod_record::PodRecord;
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

    /// The pods as they were seen last.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.lock()
            .values()
            .filter(|w| !w.messages.is_closed())
            .map(|worker| Arc::clone(&worker.pod.borrow()))
            .collect()
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
