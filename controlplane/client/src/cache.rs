//! A copy of all objects of a kind that follows the API (see `follower`). After a new list, what vanished meanwhile is reported as
//! deleted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imbl::OrdMap;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::follower::{Selection, Sink, follow};
use crate::{Client, Object, ObjectKey, WatchEvent, key_of, limits, revision_of};

/// All objects of a cache at one moment, by their keys. Cheap to clone.
pub type Snapshot<K> = OrdMap<ObjectKey, Arc<K>>;

/// One object changed.
#[derive(Debug, Clone)]
pub struct Update<K> {
    /// What it was; `None` if it is new.
    pub previous: Option<Arc<K>>,
    /// What it is; `None` if it is gone.
    pub current: Option<Arc<K>>,
}

/// A copy of the objects of a kind. Cheap to clone; all clones are the same copy.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    objects: Mutex<Snapshot<K>>,
    /// The revision that the copy stands at; 0 before the first list.
    revision: watch::Sender<u64>,
    updates: broadcast::Sender<Update<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: Object> Cache<K> {
    /// Starts to follow `selection`, in a task that ends with `stop`.
    pub fn start(client: Client, selection: Selection, stop: CancellationToken) -> Self {
        let cache = Self::detached();
        follow(cache.clone(), client, selection, stop);
        cache
    }

    /// A cache that follows nothing and is filled by [`Cache::apply`] and [`Cache::replace_all`]: for tests.
    pub fn detached() -> Self {
        let shared = Shared {
            objects: Mutex::default(),
            revision: watch::Sender::new(0),
            updates: broadcast::Sender::new(limits::UPDATES_BEHIND),
        };
        Self { shared: Arc::new(shared) }
    }

    /// All objects as they are now; empty before the first list.
    pub fn snapshot(&self) -> Snapshot<K> {
        self.objects().clone()
    }

    /// One object as it is now.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.objects().get(&ObjectKey::new(namespace, name)).cloned()
    }

    /// The revision that the copy stands at, and a signal whenever it moves. Take this, then the snapshot, then wait.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// The revision that the copy stands at; 0 before the first list.
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Every change from now on. A subscriber that falls behind by [`limits::UPDATES_BEHIND`] is told so by the channel, and has
    /// to look at the whole snapshot.
    pub fn updates(&self) -> broadcast::Receiver<Update<K>> {
        self.shared.updates.subscribe()
    }

    /// Whether the first list is here.
    pub fn is_synced(&self) -> bool {
        self.revision() > 0
    }

    /// Waits until the first list is here. Cancel safe.
    pub async fn synced(&self) {
        self.wait_for(1).await;
    }

    /// Waits until the copy stands at `revision` or later. Cancel safe.
    pub async fn wait_for(&self, revision: u64) {
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.changed().wait_for(|current| *current >= revision).await;
    }

    /// Takes in one event of a watch; an object that is older than what is here changes nothing.
    pub fn apply(&self, event: WatchEvent<K>) {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => self.put(object),
            WatchEvent::Deleted(object) => {
                let (key, revision) = (key_of(&object), revision_of(&object));
                let previous = {
                    let mut objects = self.objects();
                    if objects.get(&key).is_none_or(|present| revision_of(&**present) > revision) {
                        None
                    } else {
                        objects.remove(&key)
                    }
                };
                self.announce(previous, None);
                self.advance(revision);
            }
            WatchEvent::Bookmark(revision) => self.advance(revision.parse().unwrap_or_default()),
        }
    }

    /// Takes in a list: what is not in it is gone.
    pub fn replace_all(&self, items: Vec<K>, revision: u64) {
        let listed: Snapshot<K> = items.into_iter().map(|object| (key_of(&object), kept(object))).collect();
        let previous = std::mem::replace(&mut *self.objects(), listed.clone());
        for (key, gone) in &previous {
            if !listed.contains_key(key) {
                self.announce(Some(gone.clone()), None);
            }
        }
        for (key, object) in listed {
            let before = previous.get(&key).cloned();
            if before
                .as_ref()
                .is_none_or(|before| before.metadata().resource_version != object.metadata().resource_version)
            {
                self.announce(before, Some(object));
            }
        }
        self.shared.revision.send_replace(revision.max(1));
    }

    fn put(&self, object: K) {
        let (key, revision) = (key_of(&object), revision_of(&object));
        let object = kept(object);
        let previous = {
            let mut objects = self.objects();
            if objects.get(&key).is_some_and(|present| revision_of(&**present) >= revision) {
                return;
            }
            objects.insert(key, object.clone())
        };
        self.announce(previous, Some(object));
        self.advance(revision);
    }

    fn announce(&self, previous: Option<Arc<K>>, current: Option<Arc<K>>) {
        if previous.is_some() || current.is_some() {
            // An error means that nobody listens.
            let _ = self.shared.updates.send(Update { previous, current });
        }
    }

    fn advance(&self, revision: u64) {
        self.shared.revision.send_if_modified(|current| {
            let moves = revision > *current;
            *current = revision.max(*current);
            moves
        });
    }

    fn objects(&self) -> MutexGuard<'_, Snapshot<K>> {
        self.shared.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Object> Sink<K> for Cache<K> {
    fn replace_all(&self, items: Vec<K>, revision: u64) {
        Cache::replace_all(self, items, revision);
    }

    fn apply(&self, event: WatchEvent<K>) {
        Cache::apply(self, event);
    }

    fn revision(&self) -> u64 {
        Cache::revision(self)
    }
}

/// The object as it is kept: who manages which field is of no use to those who watch, and often larger than the rest.
fn kept<K: Object>(mut object: K) -> Arc<K> {
    object.metadata_mut().managed_fields = None;
    // A list that was read has room for more, which for a container or its status is thousands of bytes; a copy has none.
    Arc::new(object.clone())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn object(name: &str, revision: u64) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            resource_version: Some(revision.to_string()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn names(cache: &Cache<ConfigMap>) -> Vec<(String, u64)> {
        cache.snapshot().iter().map(|(key, object)| (key.name.clone(), revision_of(&**object))).collect()
    }

    #[test]
    fn an_old_event_changes_nothing() {
        let cache = Cache::detached();
        cache.replace_all(vec![object("a", 5)], 9);
        cache.apply(WatchEvent::Modified(object("a", 4)));
        cache.apply(WatchEvent::Modified(object("a", 5)));
        assert_eq!((names(&cache), cache.revision()), (vec![("a".to_owned(), 5)], 9));
        cache.apply(WatchEvent::Deleted(object("a", 12)));
        assert_eq!((names(&cache), cache.revision()), (vec![], 12));
    }

    #[test]
    fn a_second_list_reports_what_vanished() {
        let cache = Cache::detached();
        cache.replace_all(vec![object("a", 1), object("b", 2), object("c", 3)], 3);
        let mut updates = cache.updates();
        cache.replace_all(vec![object("b", 2), object("c", 7), object("d", 8)], 9);
        let mut seen = Vec::new();
        while let Ok(update) = updates.try_recv() {
            let name = |object: Option<Arc<ConfigMap>>| object.map(|object| key_of(&*object).name);
            seen.push((name(update.previous), name(update.current)));
        }
        let a = || Some("a".to_owned());
        let c = || Some("c".to_owned());
        assert_eq!(seen, [(a(), None), (c(), c()), (None, Some("d".to_owned()))]);
    }
}
