//! The ConfigMaps and Secrets that the node's pods name: each watched while a pod needs it, kept on disk for the time without
//! a control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_client::{Cache, Client, Object, Selection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::keeper::Keeper;
use crate::local_store::LocalStore;
use crate::pod::references::{
    Reference, SourceKind, Sources, config_map_contents, pull_secrets, references, secret_contents,
};
use crate::pod::spec;
use crate::uplink::Uplink;

/// How long a pod waits for an object of the API before what is on disk is taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// All objects that are watched.
pub struct SourceHub {
    client: Client,
    uplink: Uplink,
    store: LocalStore,
    keeper: Arc<Keeper>,
    stop: CancellationToken,
    changed: mpsc::Sender<Vec<String>>,
    watched: Mutex<BTreeMap<(String, Reference), Watched>>,
}

#[derive(Clone)]
struct Watched {
    source: Source,
    users: Arc<Mutex<BTreeSet<String>>>,
    stop: CancellationToken,
}

#[derive(Clone)]
enum Source {
    ConfigMap(Cache<ConfigMap>),
    Secret(Cache<Secret>),
}

type Contents = BTreeMap<String, Vec<u8>>;

impl SourceHub {
    /// Nothing is watched yet. `changed` is told the uids of pods whose objects changed.
    pub fn new(
        client: Client,
        uplink: Uplink,
        store: LocalStore,
        keeper: Arc<Keeper>,
        stop: CancellationToken,
        changed: mpsc::Sender<Vec<String>>,
    ) -> SourceHub {
        SourceHub { client, uplink, store, keeper, stop, changed, watched: Mutex::default() }
    }

    /// Everything that the pod names, as far as it exists.
    ///
    /// # Errors
    /// A sentence: an object is neither to be had from the API nor on disk.
    pub async fn fetch(&self, pod: &Pod) -> Result<Sources, String> {
        let mut sources = Sources::default();
        for reference in references(pod) {
            let watched = self.watch(spec::namespace(pod), &reference, spec::uid(pod));
            if let Some(contents) = self.contents(spec::namespace(pod), &reference, &watched.source).await? {
                sources.insert(reference, contents);
            }
        }
        Ok(sources)
    }

    /// The pod's pull secrets in its order; of one that does not exist, or is not known while no server is connected, only the name.
    pub async fn pull_secrets(&self, pod: &Pod) -> Vec<(String, Option<Arc<Secret>>)> {
        let mut secrets = Vec::new();
        for reference in pull_secrets(pod) {
            let watched = self.watch(spec::namespace(pod), &reference, spec::uid(pod));
            let secret = match &watched.source {
                Source::Secret(cache) => self.read(cache, spec::namespace(pod), &reference).await.unwrap_or_default(),
                Source::ConfigMap(_) => None,
            };
            secrets.push((reference.name, secret));
        }
        secrets
    }

    /// The pod needs nothing any more.
    pub fn forget(&self, uid: &str) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|(namespace, reference), watched| {
            let mut users = watched.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.remove(uid);
            if users.is_empty() {
                watched.stop.cancel();
                self.keeper.forget(collection(reference.kind), &format!("{namespace}/{}", reference.name));
            }
            !users.is_empty()
        });
    }

    fn watch(&self, namespace: &str, reference: &Reference, uid: &str) -> Watched {
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let watched =
            all.entry((namespace.to_owned(), reference.clone())).or_insert_with(|| self.start(namespace, reference));
        watched.users.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned());
        watched.clone()
    }

    fn start(&self, namespace: &str, reference: &Reference) -> Watched {
        let stop = self.stop.child_token();
        let selection = Selection {
            namespace: namespace.to_owned(),
            labels: None,
            fields: Some(format!("metadata.name={}", reference.name)),
        };
        let users = Arc::<Mutex<BTreeSet<String>>>::default();
        let source = match reference.kind {
            SourceKind::ConfigMap => {
                let cache = Cache::start(self.client.clone(), selection, stop.clone());
                self.follow(cache.clone(), namespace, reference, &users, &stop);
                Source::ConfigMap(cache)
            }
            SourceKind::Secret => {
                let cache = Cache::start(self.client.clone(), selection, stop.clone());
                self.follow(cache.clone(), namespace, reference, &users, &stop);
                Source::Secret(cache)
            }
        };
        Watched { source, users, stop }
    }

    /// Keeps what changes on disk and tells the pods.
    fn follow<K: Object>(
        &self,
        cache: Cache<K>,
        namespace: &str,
        reference: &Reference,
        users: &Arc<Mutex<BTreeSet<String>>>,
        stop: &CancellationToken,
    ) {
        let (keeper, changed, users, stop) =
            (Arc::clone(&self.keeper), self.changed.clone(), Arc::clone(users), stop.clone());
        let (namespace, reference) = (namespace.to_owned(), reference.clone());
        let work = async move {
            let mut signal = cache.changed();
            let mut known: Option<Option<String>> = None;
            loop {
                if cache.is_synced() {
                    let object = cache.get(&namespace, &reference.name);
                    let version = object.as_ref().and_then(|o| o.metadata().resource_version.clone());
                    if known.as_ref() != Some(&version) {
                        let name = format!("{namespace}/{}", reference.name);
                        match &object {
                            Some(object) => keeper.keep(collection(reference.kind), &name, &**object),
                            None => keeper.forget(collection(reference.kind), &name),
                        }
                        let uids: Vec<String> =
                            users.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
                        // The first time, the pods that wait for it have it from the cache.
                        if known.is_some() && changed.send(uids).await.is_err() {
                            return;
                        }
                        known = Some(version);
                    }
                }
                if signal.changed().await.is_err() {
                    return;
                }
            }
        };
        shoal_link::tasks::spawn_connection("source watch", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    async fn contents(
        &self,
        namespace: &str,
        reference: &Reference,
        source: &Source,
    ) -> Result<Option<Contents>, String> {
        let name = reference.name.as_str();
        match source {
            Source::ConfigMap(cache) => {
                self.read(cache, namespace, reference).await.map(|o| o.map(|o| config_map_contents(&o)))
            }
            Source::Secret(cache) => {
                self.read(cache, namespace, reference).await.map(|o| o.map(|o| secret_contents(&o)))
            }
        }
        .map_err(|()| {
            format!("{} {namespace}/{name} is not known here and no server is connected", collection(reference.kind))
        })
    }

    async fn read<K: Object + Serialize + DeserializeOwned>(
        &self,
        cache: &Cache<K>,
        namespace: &str,
        reference: &Reference,
    ) -> Result<Option<Arc<K>>, ()> {
        let is_worth_waiting = self.uplink.is_connected();
        if cache.is_synced() || (is_worth_waiting && tokio::time::timeout(PATIENCE, cache.synced()).await.is_ok()) {
            return Ok(cache.get(namespace, &reference.name));
        }
        let (store, key, kind) = (self.store.clone(), format!("{namespace}/{}", reference.name), reference.kind);
        let kept = tokio::task::spawn_blocking(move || store.load::<K>(collection(kind), &key)).await;
        kept.ok().flatten().map(|object| Some(Arc::new(object))).ok_or(())
    }
}

fn collection(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::ConfigMap => "configmaps",
        SourceKind::Secret => "secrets",
    }
}
