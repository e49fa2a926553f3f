//! One at a time for each key: whoever comes while another works waits, and then finds what the other left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// The keys that someone works on.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    keys: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits for one's turn; it ends when the answer is dropped. Cancel safe.
    pub(crate) async fn take(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.retain(|_, turn| turn.strong_count() > 0);
            let turn = keys.get(key).and_then(Weak::upgrade).unwrap_or_default();
            keys.insert(key.to_string(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}
