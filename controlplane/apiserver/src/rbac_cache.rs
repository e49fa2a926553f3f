//! The RBAC objects as a policy, kept up to date by looking at what changed before each decision.
//!
//! There is no task: whoever asks first after a change builds the policy anew, all others use it.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use serde_json::Value;
use shoal_api::rbac;
use shoal_store::{Store, Watch};

use crate::authentication::user::User;
use crate::authorization::Attributes;
use crate::stored;

const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// The current policy.
pub(crate) struct RbacCache {
    store: Store,
    state: Mutex<Option<Cached>>,
}

struct Cached {
    policy: Arc<rbac::Policy>,
    changes: Watch,
}

impl RbacCache {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, state: Mutex::new(None) }
    }

    /// Whether a role that is bound to the user, or to one of its groups, grants this.
    pub(crate) fn allows(&self, user: &User, attributes: &Attributes) -> bool {
        self.policy().is_some_and(|policy| policy.authorize(&attributes.rbac(user)).is_allowed())
    }

    /// The policy as this server's state has it now; none while it cannot be read.
    pub(crate) fn policy(&self) -> Option<Arc<rbac::Policy>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = state.as_mut()
            && !cached.has_changed()
        {
            return Some(cached.policy.clone());
        }
        let fresh = self.read()?;
        let policy = fresh.policy.clone();
        *state = Some(fresh);
        Some(policy)
    }

    fn read(&self) -> Option<Cached> {
        let view = self.store.view();
        let changes = self.store.watch(PREFIX, view.revision()).ok()?;
        let objects: Vec<Value> = view
            .range(PREFIX, None)
            .filter_map(|(_, entry)| stored::decode(&entry.value, entry.modified).ok())
            .collect();
        Some(Cached { policy: Arc::new(rbac::Policy::from_objects(&objects)), changes })
    }
}

impl Cached {
    /// Whether anything happened to the RBAC objects since the policy was built; a watch that ended counts.
    fn has_changed(&mut self) -> bool {
        while let Some(event) = self.changes.next().now_or_never() {
            match event {
                Some(Ok(shoal_store::WatchEvent::Progress(_))) => {}
                _ => return true,
            }
        }
        false
    }
}
