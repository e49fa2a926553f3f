//! Where this node's pods are, by uid: each with a worker, or at rest.
//!
//! Who wants to tell a worker something takes its sender under the lock, and a worker that goes to rest looks under the same lock
//! whether anybody has: so nothing is told to one that is no more.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pod_view::PodView;
use crate::resting::Resting;
use crate::worker::WorkerHandle;

/// Where one pod is.
pub enum Place {
    /// With its worker, which may be over.
    Awake(WorkerHandle),
    /// With nobody.
    Resting(Resting),
}

/// All pods of the node.
#[derive(Default)]
pub struct Places {
    by_uid: Mutex<BTreeMap<String, Place>>,
}

impl Places {
    /// All of them, as long as the answer lives.
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its worker, if it has one that is not over.
    pub fn worker(&self) -> Option<&WorkerHandle> {
        match self {
            Place::Awake(worker) => Some(worker).filter(|worker| !worker.messages.is_closed()),
            Place::Resting(_) => None,
        }
    }

    /// Whether its worker is over.
    pub fn is_over(&self) -> bool {
        matches!(self, Place::Awake(worker) if worker.messages.is_closed())
    }

    /// The pod as it is shown; none of one that is over.
    pub fn view(&self) -> Option<PodView> {
        match self {
            Place::Awake(_) => self.worker().map(|worker| worker.view.borrow().clone()),
            Place::Resting(resting) => Some(resting.view()),
        }
    }

    /// Whether it is the pod of this name.
    pub fn is_named(&self, namespace: &str, name: &str) -> bool {
        let is_so = |its_namespace: &str, its_name: &str| its_namespace == namespace && its_name == name;
        match self {
            Place::Awake(worker) => {
                let pod = worker.pod.borrow();
                is_so(crate::pod::spec::namespace(&pod), crate::pod::spec::name(&pod))
            }
            Place::Resting(resting) => is_so(&resting.namespace, &resting.name),
        }
    }
}
