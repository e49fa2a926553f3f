//! Watches: every change after a revision, in one global order, to readers that keep up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use shoal_state::{Change, Revision};
use tokio::sync::mpsc;

use crate::error::Lagged;
use crate::machine::Shared;

/// How many transactions a watcher may be behind before it is cut off.
const BEHIND: usize = 4096;

/// How often a watcher of something quiet is told how far the store is.
const PROGRESS: Duration = Duration::from_secs(5);

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The changes of one transaction, or of several in order.
    Changes(Vec<Change>),
    /// Nothing else has changed up to this revision.
    Progress(Revision),
}

/// The changes of the keys with one prefix, from a revision on.
pub struct Watch {
    /// What had happened before the watch began.
    backlog: Vec<Change>,
    live: mpsc::Receiver<Arc<[Change]>>,
    shared: Weak<Shared>,
    prefix: String,
    /// Nothing up to this revision is told, also by a server that has yet to get there.
    after: Revision,
    over: bool,
}

/// The sending half, kept by the state machine.
pub(crate) struct Watcher {
    prefix: String,
    after: Revision,
    sender: mpsc::Sender<Arc<[Change]>>,
}

impl Watcher {
    /// Hands over what concerns this watcher; false when it is gone or too slow, and is to be forgotten.
    pub(crate) fn tell(&self, changes: &Arc<[Change]>) -> bool {
        if !changes.iter().any(|change| change.revision > self.after && change.key.starts_with(&self.prefix)) {
            return !self.sender.is_closed();
        }
        self.sender.try_send(Arc::clone(changes)).is_ok()
    }
}

impl Watch {
    pub(crate) fn new(prefix: &str, after: Revision, backlog: Vec<Change>, shared: &Arc<Shared>) -> (Self, Watcher) {
        let (sender, live) = mpsc::channel(BEHIND);
        let watch =
            Self { backlog, live, shared: Arc::downgrade(shared), prefix: prefix.to_string(), after, over: false };
        (watch, Watcher { prefix: prefix.to_string(), after, sender })
    }

    /// The next event; `Err` once when the watcher was too slow, then `None`. `None` also when the store is closed.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Lagged>> {
        if self.over {
            return None;
        }
        if !self.backlog.is_empty() {
            return Some(Ok(WatchEvent::Changes(std::mem::take(&mut self.backlog))));
        }
        loop {
            match tokio::time::timeout(PROGRESS, self.live.recv()).await {
                Ok(Some(changes)) => {
                    let own = changes.iter().filter(|change| change.key.starts_with(&self.prefix)).cloned().collect();
                    return Some(Ok(WatchEvent::Changes(own)));
                }
                Ok(None) => {
                    self.over = true;
                    // The state machine lets go of a watcher only when that is too slow, or with itself.
                    return self.shared.upgrade().filter(|shared| !shared.is_closed()).map(|_| Err(Lagged));
                }
                Err(_) => {
                    let shared = self.shared.upgrade()?;
                    // Changes are handed over under the same lock, so that nothing is on its way when the queue is empty.
                    if let Some(revision) = shared.revision_if(|| self.live.is_empty())
                        && revision >= self.after
                    {
                        return Some(Ok(WatchEvent::Progress(revision)));
                    }
                }
            }
        }
    }
}
