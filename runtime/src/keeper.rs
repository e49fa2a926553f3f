//! Writing to the local store beside the work: what is newest of each object, in the order in which it comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::local_store::LocalStore;

/// One object's write: its JSON, or its removal.
type Write = Option<Box<RawValue>>;

/// Objects that wait for the disk. At most one write an object waits: a newer one replaces it.
#[derive(Default)]
pub struct Keeper {
    waiting: Mutex<BTreeMap<(&'static str, String), Write>>,
    /// Held while writes go to the disk: what was taken first is there first, and who flushes last finds all of it there.
    writing: Mutex<()>,
    woken: Notify,
}

impl Keeper {
    /// Keeps an object soon.
    pub fn keep<T: serde::Serialize>(&self, collection: &'static str, name: &str, object: &T) {
        match serde_json::value::to_raw_value(object) {
            Ok(value) => self.put(collection, name, Some(value)),
            Err(error) => tracing::warn!(collection, name, %error, "an object cannot be kept"),
        }
    }

    /// Forgets an object soon.
    pub fn forget(&self, collection: &'static str, name: &str) {
        self.put(collection, name, None);
    }

    fn put(&self, collection: &'static str, name: &str, write: Write) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert((collection, name.to_owned()), write);
        self.woken.notify_one();
    }

    /// Writes what comes, for ever.
    pub async fn work(self: Arc<Self>, store: LocalStore) {
        loop {
            self.woken.notified().await;
            let (keeper, store) = (Arc::clone(&self), store.clone());
            // A panic of the file system's code is not ours to answer: the next write is another try.
            let _ = tokio::task::spawn_blocking(move || keeper.flush(&store)).await;
        }
    }

    /// Writes everything that waits. Blocks.
    pub fn flush(&self, store: &LocalStore) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for ((collection, name), write) in waiting {
            match write {
                Some(value) => {
                    if let Err(error) = store.save(collection, &name, &value) {
                        tracing::error!(collection, name, %error, "keeping an object failed");
                    }
                }
                None => store.remove(collection, &name),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_flushes_last_finds_everything_on_disk() {
        for round in 0..50 {
            let directory = tempfile::tempdir().expect("directory");
            let store = LocalStore::open(directory.path()).expect("store");
            let keeper = Keeper::default();
            keeper.keep("pods", "a", &round);
            std::thread::scope(|scope| {
                // Either may be the one that takes the object.
                scope.spawn(|| keeper.flush(&store));
                keeper.flush(&store);
                assert_eq!(store.load::<i32>("pods", "a"), Some(round));
            });
        }
    }
}
