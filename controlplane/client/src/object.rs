//! What all kinds have in common, and where the API keeps them.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of the API with standard metadata. Implemented for all that qualify.
pub trait Object:
    Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + Clone + std::fmt::Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource
        + Metadata<Ty = ObjectMeta>
        + DeserializeOwned
        + Serialize
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// The namespace (empty if the kind has none) and the name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace, or empty.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// A key of these parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            formatter.write_str(&self.name)
        } else {
            write!(formatter, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The key of `object`.
pub fn key_of<K: Object>(object: &K) -> ObjectKey {
    let metadata = object.metadata();
    ObjectKey::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// The revision at which `object` was last written; 0 if it says none.
pub fn revision_of<K: Object>(object: &K) -> u64 {
    object.metadata().resource_version.as_deref().and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// The path of all objects of a kind, in one namespace or (empty) everywhere.
pub fn collection_path<K: Resource>(namespace: &str) -> String {
    let mut path =
        if K::GROUP.is_empty() { format!("/api/{}", K::VERSION) } else { format!("/apis/{}/{}", K::GROUP, K::VERSION) };
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    path.push('/');
    path.push_str(K::URL_PATH_SEGMENT);
    path
}

/// The path of one object, or of a subresource of it (`status`, or empty).
pub fn object_path<K: Resource>(namespace: &str, name: &str, subresource: &str) -> String {
    let mut path = collection_path::<K>(namespace);
    path.push('/');
    path.push_str(&escape(name));
    if !subresource.is_empty() {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

/// `text` as a part of a path or a query.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use k8s_openapi::api::rbac::v1::ClusterRole;

    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(collection_path::<Pod>(""), "/api/v1/pods");
        assert_eq!(object_path::<Pod>("default", "web", "status"), "/api/v1/namespaces/default/pods/web/status");
        assert_eq!(object_path::<Node>("", "w1", ""), "/api/v1/nodes/w1");
        assert_eq!(object_path::<Deployment>("a", "b", ""), "/apis/apps/v1/namespaces/a/deployments/b");
        assert!(object_path::<ClusterRole>("", "system:node", "").ends_with("/clusterroles/system%3Anode"));
    }
}
