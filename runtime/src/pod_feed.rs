//! What the API wants of this node's pods, as changes: of the pods themselves nothing is kept but which version was here last.
//!
//! A copy of all objects, as `shoal_client::Cache` has it, would be a second one of thousands: each pod's worker has its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use shoal_client::{Client, ObjectKey, Selection, Sink, WatchEvent, follow, key_of, revision_of};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::pod::spec;

/// What happened to the pod of one name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodChange {
    /// The uid of the pod that had the name, if it is gone.
    pub gone: Option<String>,
    /// The pod that has it now, if it is new or another version.
    pub current: Option<Arc<Pod>>,
}

/// The changes that wait. Cheap to clone; all clones are the same feed.
#[derive(Clone, Default)]
pub struct PodFeed {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// 0 before the first list.
    revision: u64,
    known: BTreeMap<ObjectKey, Known>,
    /// At most one change a name: a later one takes the earlier in.
    waiting: BTreeMap<ObjectKey, PodChange>,
}

/// The last that was heard of a pod.
struct Known {
    uid: Box<str>,
    revision: u64,
}

impl PodFeed {
    /// Follows the pods of a node, in a task that ends with `stop`.
    pub fn start(client: Client, node: &str, stop: CancellationToken) -> PodFeed {
        let feed = PodFeed::default();
        let fields = Some(format!("spec.nodeName={node}"));
        follow::<Pod>(feed.clone(), client, Selection { fields, ..Selection::default() }, stop);
        feed
    }

    /// Waits for changes, and takes them: after the first list all pods, which may be none, and later never none. Cancel safe.
    pub async fn next(&self, is_first: bool) -> Vec<PodChange> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut state = self.state();
                if !state.waiting.is_empty() || (is_first && state.revision > 0) {
                    return std::mem::take(&mut state.waiting).into_values().collect();
                }
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink<Pod> for PodFeed {
    fn replace_all(&self, items: Vec<Pod>, revision: u64) {
        let mut state = self.state();
        let listed: std::collections::BTreeSet<ObjectKey> = items.iter().map(key_of).collect();
        let vanished: Vec<ObjectKey> = state.known.keys().filter(|key| !listed.contains(key)).cloned().collect();
        vanished.into_iter().for_each(|key| state.remove(key));
        items.into_iter().for_each(|pod| state.put(pod));
        state.revision = revision.max(1);
        drop(state);
        self.shared.changed.notify_one();
    }

    fn apply(&self, event: WatchEvent<Pod>) {
        let mut state = self.state();
        let revision = match &event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => revision_of(pod),
            WatchEvent::Bookmark(revision) => revision.parse().unwrap_or_default(),
        };
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => state.put(pod),
            WatchEvent::Deleted(pod) => {
                let key = key_of(&pod);
                if state.known.get(&key).is_some_and(|known| known.revision <= revision) {
                    state.remove(key);
                }
            }
            WatchEvent::Bookmark(_) => {}
        }
        state.revision = state.revision.max(revision);
        drop(state);
        self.shared.changed.notify_one();
    }

    fn revision(&self) -> u64 {
        self.state().revision
    }
}

impl State {
    fn put(&mut self, mut pod: Pod) {
        let (key, revision) = (key_of(&pod), revision_of(&pod));
        let known = self.known.get(&key);
        if known.is_some_and(|known| known.revision >= revision) {
            return;
        }
        let former = known.filter(|known| *known.uid != *spec::uid(&pod)).map(|known| known.uid.to_string());
        self.known.insert(key.clone(), Known { uid: spec::uid(&pod).into(), revision });
        // Who manages which field is of no use here, and often larger than the rest.
        pod.metadata.managed_fields = None;
        let change = self.waiting.entry(key).or_default();
        // Of several that went one after another only the first can have been taken already.
        change.gone = change.gone.take().or(former);
        change.current = Some(Arc::new(pod));
    }

    fn remove(&mut self, key: ObjectKey) {
        let Some(known) = self.known.remove(&key) else { return };
        let change = self.waiting.entry(key).or_default();
        change.gone.get_or_insert_with(|| known.uid.to_string());
        change.current = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, revision: u64) -> Pod {
        let metadata =
            json!({"name": name, "namespace": "default", "uid": uid, "resourceVersion": revision.to_string()});
        serde_json::from_value(json!({"metadata": metadata})).expect("a pod")
    }

    /// The uid that is gone, and the uid and version that are there.
    type Told<'a> = (Option<&'a str>, Option<(&'a str, u64)>);

    fn told(changes: &[PodChange]) -> Vec<Told<'_>> {
        let current = |pod: &'_ Arc<Pod>| revision_of(&**pod);
        changes
            .iter()
            .map(|change| (change.gone.as_deref(), change.current.as_ref().map(|pod| (spec::uid(pod), current(pod)))))
            .collect()
    }

    #[tokio::test]
    async fn the_first_list_is_told_even_if_it_is_empty() {
        let feed = PodFeed::default();
        feed.replace_all(Vec::new(), 7);
        assert_eq!((feed.next(true).await, feed.revision()), (Vec::new(), 7));
        assert!(futures_util::poll!(std::pin::pin!(feed.next(false))).is_pending());
    }

    #[tokio::test]
    async fn what_happened_to_one_name_is_told_as_one_change() {
        let feed = PodFeed::default();
        feed.replace_all(vec![pod("a", "1", 3), pod("b", "2", 4)], 5);
        assert_eq!(told(&feed.next(true).await), [(None, Some(("1", 3))), (None, Some(("2", 4)))]);
        feed.apply(WatchEvent::Modified(pod("a", "1", 6)));
        feed.apply(WatchEvent::Deleted(pod("a", "1", 7)));
        feed.apply(WatchEvent::Added(pod("a", "3", 8)));
        feed.apply(WatchEvent::Modified(pod("a", "3", 9)));
        feed.apply(WatchEvent::Deleted(pod("b", "2", 10)));
        assert_eq!(told(&feed.next(false).await), [(Some("1"), Some(("3", 9))), (Some("2"), None)]);
    }

    #[tokio::test]
    async fn what_is_old_is_not_told_again() {
        let feed = PodFeed::default();
        feed.replace_all(vec![pod("a", "1", 3)], 5);
        feed.next(true).await;
        feed.apply(WatchEvent::Modified(pod("a", "1", 2)));
        feed.apply(WatchEvent::Bookmark("20".to_owned()));
        feed.replace_all(vec![pod("a", "1", 3)], 30);
        assert!(futures_util::poll!(std::pin::pin!(feed.next(false))).is_pending());
        feed.replace_all(Vec::new(), 31);
        assert_eq!(told(&feed.next(false).await), [(Some("1"), None)]);
    }

    #[tokio::test]
    async fn a_pod_that_came_and_went_unseen_is_still_told_as_gone() {
        let feed = PodFeed::default();
        feed.replace_all(Vec::new(), 1);
        feed.next(true).await;
        feed.apply(WatchEvent::Added(pod("a", "1", 2)));
        feed.apply(WatchEvent::Deleted(pod("a", "1", 3)));
        assert_eq!(told(&feed.next(false).await), [(Some("1"), None)]);
    }
}
