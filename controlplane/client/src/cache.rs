//! A copy of all objects of a kind that follows the API: a list, then a watch, then a watch from where that one stopped.
//!
//! The copy moves from one revision to a later one and never back. Only when the API no longer keeps the revision that the
//! copy stands at is everything listed again; what vanished meanwhile is reported as deleted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::{Client, ClientError, ListOptions, Object, ObjectKey, WatchEvent, key_of, limits, revision_of};

/// All objects of a cache at one moment, by their keys. Cheap to clone.
pub type Snapshot<K> = OrdMap<ObjectKey, Arc<K>>;

/// Which objects a cache holds.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// In this namespace; everywhere if empty.
    pub namespace: String,
    /// With these labels.
    pub labels: Option<String>,
    /// With these fields: `spec.nodeName=w1`.
    pub fields: Option<String>,
}

/// One object changed.
#[derive(Debug, Clone)]
pub struct Update<K> {
    /// What it was; `None` if it is new.
    pub previous: Option<Arc<K>>,
    /// What it is; `None` if it is gone.
    pub current: Option<Arc<K>>,
}

/// What changed from one snapshot of a cache to a later one. It takes the time of what changed, not of what there is.
pub fn changes<K: Object + PartialEq>(before: &Snapshot<K>, after: &Snapshot<K>) -> Vec<Update<K>> {
    let update = |item| match item {
        DiffItem::Add(_, new) => Update { previous: None, current: Some(Arc::clone(new)) },
        DiffItem::Update { old: (_, old), new: (_, new) } => {
            Update { previous: Some(Arc::clone(old)), current: Some(Arc::clone(new)) }
        }
        DiffItem::Remove(_, old) => Update { previous: Some(Arc::clone(old)), current: None },
    };
    before.diff(after).map(update).collect()
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
        let follower = Follower {
            cache: cache.clone(),
            client,
            namespace: selection.namespace,
            options: ListOptions { labels: selection.labels, fields: selection.fields, resource_version: None },
        };
        // Boxed, because the compiler cannot see through so many borrowing futures that the task may move between threads.
        let follow: BoxFuture<'static, ()> = Box::pin(follower.run());
        shoal_link::tasks::spawn_connection("cache", async move {
            stop.run_until_cancelled_owned(follow).await;
        });
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

struct Follower<K> {
    cache: Cache<K>,
    client: Client,
    namespace: String,
    options: ListOptions,
}

impl<K: Object> Follower<K> {
    async fn run(self) {
        let mut failures = 0;
        loop {
            if let Err(error) = self.list_and_watch(&mut failures).await {
                failures += 1;
                tracing::debug!(kind = K::KIND, %error, "a cache lists again");
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Lists, then watches until only a new list helps.
    async fn list_and_watch(&self, failures: &mut u32) -> Result<(), ClientError> {
        let listed = self.client.list::<K>(&self.namespace, &self.options).await?;
        let revision =
            listed.resource_version.parse().map_err(|_| ClientError::Decode("a list has no revision".to_owned()))?;
        self.cache.replace_all(listed.items, revision);
        *failures = 0;
        loop {
            let before = self.cache.revision();
            match self.watch().await {
                Ok(()) => *failures = 0,
                Err(error) if error.is_expired() => return Err(error),
                Err(error) => {
                    *failures = if self.cache.revision() > before { 1 } else { failures.saturating_add(1) };
                    tracing::debug!(kind = K::KIND, %error, "a watch broke off");
                    tokio::time::sleep(pause(*failures)).await;
                }
            }
        }
    }

    async fn watch(&self) -> Result<(), ClientError> {
        let from = self.cache.revision().to_string();
        let mut watch = self.client.watch::<K>(&self.namespace, &self.options, &from).await?;
        while let Some(event) = watch.next().await? {
            self.cache.apply(event);
        }
        // A server that ends every watch at once would otherwise be asked without a pause.
        tokio::time::sleep(pause(0)).await;
        Ok(())
    }
}

/// Doubles with every failure, up to a longest, and differs from one cache to the next.
fn pause(failures: u32) -> Duration {
    let (first, longest) = limits::RETRY_PAUSES;
    let whole = first.saturating_mul(1 << failures.min(10)).min(longest);
    whole.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// The object as it is kept: who manages which field is of no use to those who watch, and often larger than the rest.
fn kept<K: Object>(mut object: K) -> Arc<K> {
    object.metadata_mut().managed_fields = None;
    // A list that was read has room for more, which for a container or its status is thousands of bytes; a copy has none.
    #[expect(clippy::redundant_clone, reason = "the copy is smaller")]
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
    fn two_snapshots_tell_what_changed() {
        let cache = Cache::detached();
        cache.replace_all((0..500).map(|n| object(&format!("o{n}"), 1)).collect(), 1);
        let before = cache.snapshot();
        cache.apply(WatchEvent::Modified(object("o7", 2)));
        cache.apply(WatchEvent::Deleted(object("o8", 3)));
        cache.apply(WatchEvent::Added(object("p", 4)));
        let name = |object: Option<Arc<ConfigMap>>| object.map(|object| key_of(&*object).name).unwrap_or_default();
        let seen: Vec<_> = changes(&before, &cache.snapshot())
            .into_iter()
            .map(|update| (name(update.previous), name(update.current)))
            .collect();
        let pair = |before: &str, after: &str| (before.to_owned(), after.to_owned());
        assert_eq!(seen, [pair("o7", "o7"), pair("o8", ""), pair("", "p")]);
        assert!(changes(&cache.snapshot(), &cache.snapshot()).is_empty());
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
