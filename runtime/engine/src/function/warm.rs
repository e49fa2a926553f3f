//! Instances of a function that wait for a next request, where the embedder allows it.
//!
//! One request at a time is in an instance, as WASI 0.2 has it. Only an instance whose last request ended as it should is kept: one
//! that trapped, was too late or was killed goes. What such a function remembers from request to request is its own business.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;

use crate::grants::Reuse;
use crate::host::Host;

/// How long an instance waits for a request before it goes.
const IDLE: Duration = Duration::from_secs(30);

/// One instance, with all that is its own.
pub(crate) struct Instance {
    pub store: Store<Host>,
    pub proxy: Proxy,
    /// How many requests it has answered.
    served: u32,
}

impl Instance {
    pub(crate) fn new(store: Store<Host>, proxy: Proxy) -> Self {
        Self { store, proxy, served: 0 }
    }
}

struct Kept {
    instance: Instance,
    since: Instant,
    /// Its place among those that the engine keeps over all functions.
    _place: OwnedSemaphorePermit,
}

/// The instances of one function that wait.
pub(crate) struct Warm {
    reuse: Option<Reuse>,
    places: Arc<Semaphore>,
    kept: Mutex<Vec<Kept>>,
    is_watched: AtomicBool,
}

impl Warm {
    /// None yet. `places` is how many the engine keeps for all of its functions.
    pub(crate) fn new(reuse: Option<Reuse>, places: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { reuse, places, kept: Mutex::default(), is_watched: AtomicBool::new(false) })
    }

    /// The one that waits for the shortest time: its memory is the warmest, and the others may go.
    pub(crate) fn take(&self) -> Option<Instance> {
        self.reuse?;
        Some(self.lock().pop()?.instance)
    }

    /// Keeps an instance that has answered a request, if it may answer another and there is a place.
    pub(crate) fn keep(self: &Arc<Self>, mut instance: Instance) {
        let Some(reuse) = self.reuse else { return };
        instance.served += 1;
        if instance.served >= reuse.requests {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let mut kept = self.lock();
        if kept.len() >= reuse.instances {
            return;
        }
        kept.push(Kept { instance, since: Instant::now(), _place: place });
        drop(kept);
        if !self.is_watched.swap(true, Ordering::AcqRel) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Lets all go.
    pub(crate) fn clear(&self) {
        let kept = std::mem::take(&mut *self.lock());
        drop(kept);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those go that have waited too long; false when none is left.
    fn prune(&self) -> bool {
        let mut kept = self.lock();
        // The oldest are first: the newest is always taken.
        let young = kept.iter().position(|kept| kept.since.elapsed() < IDLE).unwrap_or(kept.len());
        let old: Vec<Kept> = kept.drain(..young).collect();
        let is_any = !kept.is_empty();
        if !is_any {
            self.is_watched.store(false, Ordering::Release);
        }
        drop(kept);
        drop(old);
        is_any
    }
}

/// Looks after a function's instances until none waits.
async fn watch(warm: Weak<Warm>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(warm) = warm.upgrade() else { return };
        if !warm.prune() {
            return;
        }
    }
}
