//! What the containers of one pod may use together, where the pod says so as a whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use k8s_openapi::api::core::v1::Pod;
use shoal_engine::Group;

use crate::pod::resources::{Bound, of_whole};
use crate::pod::spec;

/// The groups of the pods that have one, by the pods' uids. A group is there while a guest has it.
#[derive(Default)]
pub struct Groups(Mutex<HashMap<String, Weak<Group>>>);

impl Groups {
    /// The group of a pod's guests; `None` if the pod as a whole has no limit.
    pub fn of(&self, pod: &Pod) -> Option<Arc<Group>> {
        let limit = |resource: &str| of_whole(pod, Bound::Limits, resource);
        let memory = limit("memory").and_then(|quantity| u64::try_from(quantity.bytes()).ok());
        let processor = limit("cpu").and_then(|quantity| u32::try_from(quantity.millis()).ok());
        if memory.is_none() && processor.is_none() {
            return None;
        }
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = groups.entry(spec::uid(pod).to_owned()).or_default();
        Some(place.upgrade().unwrap_or_else(|| {
            let group = Group::new(memory, processor);
            *place = Arc::downgrade(&group);
            group
        }))
    }

    /// The pod is no more.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_of_a_pod_have_one_group_and_those_of_others_another() {
        let groups = Groups::default();
        let pod = |uid: &str, resources: serde_json::Value| -> Pod {
            let value = json!({"metadata": {"uid": uid}, "spec": {"containers": [], "resources": resources}});
            serde_json::from_value(value).expect("a pod")
        };
        let limits = json!({"limits": {"memory": "1Mi"}});
        let first = groups.of(&pod("a", limits.clone())).expect("a group");
        assert!(groups.of(&pod("a", limits.clone())).is_some_and(|again| Arc::ptr_eq(&again, &first)));
        assert!(groups.of(&pod("b", limits)).is_some_and(|other| !Arc::ptr_eq(&other, &first)));
        assert!(groups.of(&pod("c", json!({"requests": {"memory": "1Mi"}}))).is_none(), "a request is no limit");
    }
}
