//! What the API must be told of the static pods. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::pod::spec::{self, CONFIG_MIRROR};

/// One thing to do with a mirror.
#[derive(Debug, Clone, PartialEq)]
pub enum MirrorAction {
    /// Make it.
    Create(Box<Pod>),
    /// Remove it at once.
    Delete {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its own uid.
        uid: String,
    },
}

/// A pod's namespace and name, which a static pod and its mirror share.
pub type FullName = (String, String);

/// The pod's namespace and name.
pub fn full_name(pod: &Pod) -> FullName {
    (spec::namespace(pod).to_owned(), spec::name(pod).to_owned())
}

/// Whether the pod is a mirror.
pub fn is_mirror(pod: &Pod) -> bool {
    spec::annotation(pod, CONFIG_MIRROR).is_some()
}

/// The mirror of a static pod. The node owns it, so that it goes with the node.
pub fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let hash = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.resource_version = None;
    mirror.metadata.annotations.get_or_insert_default().insert(CONFIG_MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None::<PodStatus>;
    mirror
}

/// What to do: every static pod has one mirror, of its present manifest and not being deleted; a mirror of no pod goes once
/// nothing of the pod runs. `static_pods` are those that run or are to run, ending ones included.
pub fn mirror_actions(static_pods: &[Arc<Pod>], mirrors: &[Arc<Pod>], node: &Node) -> Vec<MirrorAction> {
    let by_name: BTreeMap<FullName, &Arc<Pod>> = static_pods.iter().map(|pod| (full_name(pod), pod)).collect();
    let is_good = |mirror: &Pod| {
        let pod = by_name.get(&full_name(mirror));
        let hash = spec::annotation(mirror, CONFIG_MIRROR);
        !spec::is_deleted(mirror) && pod.is_some_and(|pod| Some(spec::uid(pod)) == hash)
    };
    let bad = mirrors.iter().filter(|mirror| !is_good(mirror)).map(|mirror| MirrorAction::Delete {
        namespace: spec::namespace(mirror).to_owned(),
        name: spec::name(mirror).to_owned(),
        uid: spec::uid(mirror).to_owned(),
    });
    let has_one = |name: &FullName| mirrors.iter().any(|mirror| &full_name(mirror) == name);
    let missing = by_name.iter().filter(|(name, _)| !has_one(name));
    bad.chain(missing.map(|(_, pod)| MirrorAction::Create(Box::new(mirror_of(pod, node))))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "w1", "uid": "node-uid"}})).expect("a node")
    }

    fn static_pod(name: &str, hash: &str) -> Arc<Pod> {
        let metadata = json!({"name": name, "namespace": "d", "uid": hash, "annotations": {spec::CONFIG_SOURCE: "file", spec::CONFIG_HASH: hash}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}})).expect("a pod"))
    }

    fn mirror(name: &str, hash: &str, is_deleted: bool) -> Arc<Pod> {
        let mut mirror = mirror_of(&static_pod(name, hash), &node());
        mirror.metadata.uid = Some(format!("api-{name}"));
        if is_deleted {
            let time = jiff::Timestamp::UNIX_EPOCH;
            mirror.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        }
        Arc::new(mirror)
    }

    fn words(actions: &[MirrorAction]) -> Vec<String> {
        let word = |action: &MirrorAction| match action {
            MirrorAction::Create(pod) => format!("create {}", spec::name(pod)),
            MirrorAction::Delete { name, .. } => format!("delete {name}"),
        };
        actions.iter().map(word).collect()
    }

    #[test]
    fn a_mirror_says_whose_it_is_and_of_which_manifest() {
        let mirror = mirror_of(&static_pod("a", "h1"), &node());
        assert_eq!((spec::annotation(&mirror, CONFIG_MIRROR), spec::uid(&mirror)), (Some("h1"), ""));
        let owner = &mirror.metadata.owner_references.expect("an owner")[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Node", "node-uid", Some(true)));
    }

    #[test]
    fn a_deleted_mirror_is_removed_and_made_again() {
        let pods = [static_pod("a", "h1")];
        assert_eq!(words(&mirror_actions(&pods, &[mirror("a", "h1", true)], &node())), ["delete a"]);
        assert_eq!(words(&mirror_actions(&pods, &[], &node())), ["create a"]);
        assert_eq!(words(&mirror_actions(&pods, &[mirror("a", "h0", false)], &node())), ["delete a"]);
        assert_eq!(words(&mirror_actions(&[], &[mirror("a", "h1", false)], &node())), ["delete a"]);
    }

    proptest! {
        #[test]
        fn doing_it_until_nothing_is_left_to_do_gives_each_pod_one_mirror(
            pods in prop::collection::btree_map(0_u8..5, 0_u8..3, 0..5),
            mirrors in prop::collection::btree_map(0_u8..5, (0_u8..3, any::<bool>()), 0..5),
        ) {
            let pods: Vec<_> = pods.iter().map(|(name, hash)| static_pod(&name.to_string(), &hash.to_string())).collect();
            let mut api: Vec<_> = mirrors.iter().map(|(name, (hash, gone))| mirror(&name.to_string(), &hash.to_string(), *gone)).collect();
            for _ in 0..2 {
                for action in mirror_actions(&pods, &api, &node()) {
                    match action {
                        MirrorAction::Create(pod) => api.push(Arc::new(*pod)),
                        MirrorAction::Delete { name, .. } => api.retain(|mirror| spec::name(mirror) != name),
                    }
                }
            }
            prop_assert_eq!(mirror_actions(&pods, &api, &node()), []);
            let mut names: Vec<_> = api.iter().map(|mirror| full_name(mirror)).collect();
            names.sort();
            prop_assert_eq!(names, pods.iter().map(|pod| full_name(pod)).collect::<Vec<_>>());
        }
    }
}
