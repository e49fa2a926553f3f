//! The pods of this node, by uid: one worker each, but for those with whom there is nothing to do (see `resting`).

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::places::{Place, Places};
use crate::pod::observed::Doom;
use crate::pod::{Happening, spec};
use crate::pod_feed::PodChange;
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

/// All pods of the node.
pub struct Pods {
    context: Arc<Context>,
    places: Arc<Places>,
    /// The uid of the mirror that each static pod had last, by the pod's own.
    mirrors: Mutex<BTreeMap<String, String>>,
    /// Whether the manifests have been read.
    are_files_known: AtomicBool,
}

impl Pods {
    /// None yet.
    pub fn new(context: Arc<Context>) -> Pods {
        Pods { context, places: Arc::default(), mirrors: Mutex::default(), are_files_known: AtomicBool::new(false) }
    }

    /// Takes a pod that was kept on disk.
    pub fn restore(&self, record: PodRecord) {
        let uid = spec::uid(&record.pod).to_owned();
        if let Some(address) = record.observed.address {
            self.context.addresses.lock().unwrap_or_else(PoisonError::into_inner).keep(address, &uid);
        }
        let pod = Arc::new(record.pod.clone());
        let worker = worker::spawn(&self.context, &self.places, &pod, Some(record));
        self.places.lock().insert(uid, Place::Awake(worker));
    }

    /// Takes all that one origin wants: new pods get a worker, known ones the new object, and those of it that are gone are told so.
    ///
    /// A manifest that changed is another pod of the same name, which begins when the one before has ended.
    pub async fn synchronize(&self, wanted: &[Arc<Pod>], origin: Origin) {
        let uids: HashSet<&str> = wanted.iter().map(|pod| spec::uid(pod)).collect();
        let gone = {
            let mut places = self.places.lock();
            places.retain(|_, place| !place.is_over());
            for pod in wanted {
                if origin == Origin::Api || !has_namesake(&places, pod) {
                    self.take(&mut places, pod);
                }
            }
            let is_gone = |uid: &String, place: &Place| {
                // Static pods do not rest.
                let its = place.worker().map_or(Origin::Api, |worker| Origin::of(&worker.pod.borrow()));
                its == origin && !uids.contains(uid.as_str())
            };
            let gone: Vec<String> =
                places.iter().filter(|(uid, place)| is_gone(uid, place)).map(|(uid, _)| uid.clone()).collect();
            gone.iter().filter_map(|uid| self.sender(&mut places, uid)).collect::<Vec<_>>()
        };
        if origin == Origin::File {
            self.are_files_known.store(true, Ordering::SeqCst);
        }
        tell_gone(gone).await;
    }

    /// Takes what changed of the pods that the API wants. It takes the time of the changes, not of all pods.
    pub async fn follow(&self, changes: &[PodChange]) {
        let gone = {
            let mut places = self.places.lock();
            let gone: Vec<_> = changes
                .iter()
                .filter_map(|change| change.gone.as_ref())
                .filter_map(|uid| self.sender(&mut places, uid))
                .collect();
            changes.iter().filter_map(|change| change.current.as_ref()).for_each(|pod| self.take(&mut places, pod));
            if !gone.is_empty() {
                places.retain(|_, place| !place.is_over());
            }
            gone
        };
        tell_gone(gone).await;
    }

    /// The static pods, those that are ending included; none before the manifests have been read.
    pub fn static_pods(&self) -> Option<Vec<Arc<Pod>>> {
        let is_known = self.are_files_known.load(Ordering::SeqCst);
        let of_workers = || -> Vec<Arc<Pod>> {
            self.places
                .lock()
                .values()
                .filter_map(Place::worker)
                .map(|worker| worker.view.borrow().pod.clone())
                .collect()
        };
        // They do not rest.
        is_known.then(|| of_workers().into_iter().filter(|pod| spec::is_static(pod)).collect())
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
            let mut places = self.places.lock();
            let new = known.iter().filter(|(hash, uid)| before.get(*hash) != Some(*uid));
            changed.extend(new.filter_map(|(hash, _)| self.sender(&mut places, hash)));
            // One without a worker yet is told when it has one.
            known.retain(|hash, _| places.contains_key(hash));
            *before = known;
        }
        for worker in changed {
            let _ = worker.send(Message::TellAgain).await;
        }
    }

    /// Tells the workers of these pods that a ConfigMap or Secret of theirs changed.
    pub async fn sources_changed(&self, uids: &[String]) {
        let workers: Vec<_> = {
            let mut places = self.places.lock();
            uids.iter().filter_map(|uid| self.sender(&mut places, uid)).collect()
        };
        for worker in workers {
            let _ = worker.send(Message::Happened(Box::new(Happening::SourcesChanged))).await;
        }
    }

    /// The pods as they are shown.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.views().into_iter().map(|view| view.pod).collect()
    }

    /// What is made of the pods. Those at rest are decoded for it.
    pub fn views(&self) -> Vec<PodView> {
        self.places.lock().values().filter_map(Place::view).collect()
    }

    /// The pods that have not come to their end.
    pub fn active(&self) -> Vec<Arc<Pod>> {
        self.views().into_iter().filter(|view| !view.is_over()).map(|view| view.pod).collect()
    }

    /// As [`Pods::active`], one after another: those at rest are decoded for as long as they are looked at. All at once would be
    /// several times what thousands of them are at rest.
    pub fn active_one_by_one(&self) -> impl Iterator<Item = Arc<Pod>> {
        let uids: Vec<String> = self.places.lock().keys().cloned().collect();
        let views = uids.into_iter().filter_map(|uid| self.places.lock().get(&uid).and_then(Place::view));
        views.filter(|view| !view.is_over()).map(|view| view.pod)
    }

    /// Those of them that are not at rest.
    pub fn awake(&self) -> Vec<Arc<Pod>> {
        let places = self.places.lock();
        let views = places.values().filter(|place| place.worker().is_some()).filter_map(Place::view);
        views.filter(|view| !view.is_over()).map(|view| view.pod).collect()
    }

    /// Whether something of the pod runs.
    pub fn is_busy(&self, uid: &str) -> bool {
        match self.places.lock().get(uid) {
            Some(Place::Resting(resting)) => resting.is_busy(),
            Some(place) => place.worker().is_some_and(|worker| !worker.view.borrow().is_quiet),
            None => false,
        }
    }

    /// Ends a pod for a reason of the node's.
    pub async fn doom(&self, uid: &str, doom: Doom) {
        let worker = self.sender(&mut self.places.lock(), uid);
        if let Some(worker) = worker {
            // A worker that is over by now needs no word.
            let _ = worker.send(Message::Happened(Box::new(Happening::Doomed(doom)))).await;
        }
    }

    /// Waits until nothing of these pods runs and the API knows it, as far as it can be told. Cancel safe.
    pub async fn ended(&self, uids: &[String]) {
        // Who is to end does not rest.
        let views: Vec<_> = {
            let places = self.places.lock();
            uids.iter().filter_map(|uid| places.get(uid)?.worker().map(|worker| worker.view.clone())).collect()
        };
        for mut view in views {
            // One whose worker is over has ended.
            let _ = view.wait_for(|view| view.is_quiet && view.is_reported).await;
        }
    }

    /// A pod by its name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let places = self.places.lock();
        let named = places.values().filter(|place| place.is_named(namespace, name)).filter_map(Place::view);
        named.map(|view| view.pod).max_by_key(|pod| (!spec::is_deleted(pod), pod.metadata.creation_timestamp.clone()))
    }

    /// Gives the pod to its worker, or to a new one.
    fn take(&self, places: &mut BTreeMap<String, Place>, pod: &Arc<Pod>) {
        let uid = spec::uid(pod);
        if uid.is_empty() {
            return;
        }
        if let Some(Place::Resting(resting)) = places.get(uid) {
            if pod.metadata.resource_version.as_deref() == Some(&*resting.resource_version) {
                return;
            }
            self.wake(places, uid);
        }
        match places.get(uid).and_then(Place::worker) {
            Some(worker) => update(worker, pod),
            None => {
                let worker = worker::spawn(&self.context, &self.places, pod, None);
                places.insert(uid.to_owned(), Place::Awake(worker));
            }
        }
    }

    /// How the pod's worker is told something; one that rests is woken for it.
    fn sender(&self, places: &mut BTreeMap<String, Place>, uid: &str) -> Option<mpsc::Sender<Message>> {
        self.wake(places, uid);
        places.get(uid).and_then(Place::worker).map(|worker| worker.messages.clone())
    }

    /// Gives a pod that rests a worker.
    fn wake(&self, places: &mut BTreeMap<String, Place>, uid: &str) {
        if !matches!(places.get(uid), Some(Place::Resting(_))) {
            return;
        }
        if let Some(Place::Resting(resting)) = places.remove(uid) {
            let worker = worker::resume(&self.context, &self.places, resting.wake());
            places.insert(uid.to_owned(), Place::Awake(worker));
        }
    }
}

/// Whether another manifest's pod has its name still.
fn has_namesake(places: &BTreeMap<String, Place>, pod: &Pod) -> bool {
    !places.contains_key(spec::uid(pod))
        && places.values().filter_map(Place::worker).any(|worker| {
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
