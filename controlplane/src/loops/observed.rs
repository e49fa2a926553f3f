//! All that the loops see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::api::storage::v1::StorageClass;
use shoal_client::{Cache, Client, Object, ObjectKey, Selection, Snapshot};
use shoal_controllers::Thing;
use tokio_util::sync::CancellationToken;

/// How long to wait for a cache to show what was just written.
const REFLECTION: Duration = Duration::from_secs(5);

macro_rules! caches {
    ($($name:ident: $kind:ty),* $(,)?) => {
        /// One cache a kind. Cheap to clone.
        #[derive(Clone)]
        pub(crate) struct Observed {
            $(pub $name: Cache<$kind>,)*
        }

        impl Observed {
            /// Starts all caches; they end with `stop`.
            pub fn start(client: &Client, stop: &CancellationToken) -> Self {
                Self { $($name: Cache::start(client.clone(), Selection::default(), stop.clone()),)* }
            }

            /// Waits until all of them are filled.
            pub async fn synced(&self) {
                $(self.$name.synced().await;)*
            }

            /// Waits until the cache of `kind` shows what was written at `revision`, within reason.
            pub async fn reflects(&self, kind: &str, revision: u64) {
                $(if kind == <$kind as k8s_openapi::Resource>::KIND {
                    // A cache that is so late is listing again, and shows everything when it is done.
                    let _ = tokio::time::timeout(REFLECTION, self.$name.wait_for(revision)).await;
                })*
            }

            /// What all objects have in common, in one namespace or (empty) everywhere.
            pub fn things(&self, namespace: &str) -> Vec<Thing> {
                let mut things = Vec::new();
                $(things.extend(within(&self.$name.snapshot(), namespace).iter().map(|object| Thing::of(&**object)));)*
                things
            }

            /// The API version, kind and plural of all that is seen.
            pub fn kinds() -> Vec<(String, String, String)> {
                vec![$(kind_of::<$kind>(),)*]
            }
        }
    };
}

caches! {
    pods: Pod,
    replica_sets: ReplicaSet,
    deployments: Deployment,
    services: Service,
    endpoint_slices: EndpointSlice,
    endpoints: Endpoints,
    nodes: Node,
    leases: Lease,
    namespaces: Namespace,
    service_accounts: ServiceAccount,
    config_maps: ConfigMap,
    secrets: Secret,
    roles: Role,
    role_bindings: RoleBinding,
    claims: PersistentVolumeClaim,
    volumes: PersistentVolume,
    storage_classes: StorageClass,
}

fn kind_of<K: k8s_openapi::Resource>() -> (String, String, String) {
    (K::API_VERSION.to_owned(), K::KIND.to_owned(), K::URL_PATH_SEGMENT.to_owned())
}

/// The objects of one namespace, or all if it is empty.
pub(crate) fn within<K: Object>(snapshot: &Snapshot<K>, namespace: &str) -> Vec<Arc<K>> {
    if namespace.is_empty() {
        return snapshot.values().cloned().collect();
    }
    let from = ObjectKey::new(namespace, "");
    snapshot.range(from..).take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
}

/// Whether every one of `wanted` is among `labels`.
pub(crate) fn has_all(wanted: &BTreeMap<String, String>, labels: Option<&BTreeMap<String, String>>) -> bool {
    wanted.iter().all(|(name, value)| labels.is_some_and(|labels| labels.get(name) == Some(value)))
}
