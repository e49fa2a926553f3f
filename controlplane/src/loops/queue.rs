//! Which keys are to be looked at: each once, never twice at a time, and later again if somebody asked for that.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_client::ObjectKey;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first and the longest pause after a look that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(30));

/// A queue of keys. There may be several who take from it.
#[derive(Default)]
pub(crate) struct Queue {
    keys: Mutex<Keys>,
    more: Notify,
}

#[derive(Default)]
struct Keys {
    ready: VecDeque<ObjectKey>,
    /// What is in `ready`.
    queued: HashSet<ObjectKey>,
    /// Those that somebody looks at, and those that rest.
    taken: HashSet<ObjectKey>,
    /// Until when each key rests that was looked at.
    resting: BTreeSet<(Instant, ObjectKey)>,
    later: BTreeSet<(Instant, ObjectKey)>,
    /// When each key in `later` is due: once, at the earliest moment asked for.
    due: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, u32>,
}

impl Queue {
    /// Have `key` looked at.
    pub fn add(&self, key: ObjectKey) {
        let mut keys = self.keys();
        if keys.queued.insert(key.clone()) {
            keys.ready.push_back(key);
            self.more.notify_one();
        }
    }

    /// Have `key` looked at in a while.
    pub fn add_in(&self, key: ObjectKey, pause: Duration) {
        self.keys().postpone(key, Instant::now() + pause);
        self.more.notify_one();
    }

    /// Waits for a key to look at; [`Queue::done`] gives it back. Cancel safe.
    pub async fn next(&self) -> ObjectKey {
        loop {
            let due = match self.keys().take(Instant::now()) {
                Ok((key, is_more)) => {
                    if is_more {
                        self.more.notify_one();
                    }
                    return key;
                }
                Err(due) => due,
            };
            match due {
                None => self.more.notified().await,
                Some(due) => {
                    // Either way there is something to see.
                    let _ = tokio::time::timeout_at(due, self.more.notified()).await;
                }
            }
        }
    }

    /// Says that the look at `key` is over, and whether it has to be repeated. The next look comes after `rest` at the earliest,
    /// whatever happens meanwhile.
    pub fn done(&self, key: &ObjectKey, is_good: bool, rest: Duration) {
        let mut keys = self.keys();
        if rest.is_zero() {
            keys.taken.remove(key);
        } else {
            keys.resting.insert((Instant::now() + rest, key.clone()));
        }
        if is_good {
            keys.failures.remove(key);
        } else {
            let failures = keys.failures.entry(key.clone()).or_default();
            let (first, longest) = PAUSES;
            let pause = first.saturating_mul(1 << (*failures).min(12)).min(longest);
            *failures = failures.saturating_add(1);
            keys.postpone(key.clone(), Instant::now() + pause);
        }
        self.more.notify_one();
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn postpone(&mut self, key: ObjectKey, due: Instant) {
        match self.due.get(&key) {
            Some(present) if *present <= due => return,
            Some(present) => drop(self.later.remove(&(*present, key.clone()))),
            None => {}
        }
        self.due.insert(key.clone(), due);
        self.later.insert((due, key));
    }

    /// A key that nobody looks at, and whether there are more; or when the next is due.
    fn take(&mut self, now: Instant) -> Result<(ObjectKey, bool), Option<Instant>> {
        while self.resting.first().is_some_and(|(until, _)| *until <= now)
            && let Some((_, key)) = self.resting.pop_first()
        {
            self.taken.remove(&key);
        }
        while let Some((due, _)) = self.later.first()
            && *due <= now
        {
            let Some((_, key)) = self.later.pop_first() else { break };
            self.due.remove(&key);
            if self.queued.insert(key.clone()) {
                self.ready.push_back(key);
            }
        }
        let free = self.ready.iter().position(|key| !self.taken.contains(key));
        let Some(key) = free.and_then(|index| self.ready.remove(index)) else {
            // A key that rests is waited for only if it is wanted.
            let rested = self.resting.iter().find(|(_, key)| self.queued.contains(key)).map(|(until, _)| *until);
            return Err(self.later.first().map(|(due, _)| *due).into_iter().chain(rested).min());
        };
        self.queued.remove(&key);
        self.taken.insert(key.clone());
        Ok((key, !self.ready.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("", name)
    }

    #[tokio::test]
    async fn a_key_is_looked_at_once_and_never_twice_at_a_time() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        let first = queue.next().await;
        queue.add(key("a"));
        assert_eq!((first, queue.next().await), (key("a"), key("b")));
        let mut waiting = std::pin::pin!(queue.next());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        queue.done(&key("a"), true, Duration::ZERO);
        assert_eq!(waiting.await, key("a"));
    }

    #[tokio::test]
    async fn of_several_later_moments_the_first_counts() {
        let queue = Queue::default();
        for pause in [60_u64, 0, 30] {
            queue.add_in(key("a"), Duration::from_secs(pause));
        }
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"), true, Duration::ZERO);
        assert!(futures_util::poll!(std::pin::pin!(queue.next())).is_pending());
    }

    #[tokio::test]
    async fn a_look_that_failed_is_repeated_later() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.next().await;
        queue.done(&key("a"), false, Duration::ZERO);
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test]
    async fn a_key_rests_after_a_look_and_others_do_not() {
        let queue = Queue::default();
        let (start, rest) = (Instant::now(), Duration::from_millis(50));
        queue.add(key("a"));
        queue.next().await;
        queue.add(key("a"));
        queue.done(&key("a"), true, rest);
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("b"));
        assert_eq!(queue.next().await, key("a"));
        assert!(start.elapsed() >= rest);
    }
}
