//! Where tags and manifests live: the cluster's store, seen as a map from key to bytes.

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// The cluster's store as the registry needs it. Keys are paths without a leading slash, such as
/// `manifests/web/hello/sha256:…`, ordered bytewise; the implementation puts a prefix of its own before them.
pub trait Catalog: Send + Sync + 'static {
    /// The value of `key` as of now (linearizable), if it has one.
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Bytes>, CatalogError>>;

    /// All pairs whose key begins with `prefix`, in the order of their keys.
    fn list(&self, prefix: String) -> BoxFuture<'_, Result<Vec<(String, Bytes)>, CatalogError>>;

    /// Writes all of `changes` in one transaction, durably; a value of `None` deletes its key, which need not exist.
    fn write(&self, changes: Vec<(String, Option<Bytes>)>) -> BoxFuture<'_, Result<(), CatalogError>>;
}

/// The store did not do what it was asked; the outcome of a write may be unknown. The request can be tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CatalogError(pub String);

/// The prefix of the keys of all manifests.
pub(crate) const MANIFESTS: &str = "manifests/";

/// The key of a manifest: its bytes are preceded by its media type and a newline.
pub(crate) fn manifest_key(name: &str, digest: &str) -> String {
    format!("manifests/{name}@{digest}")
}

/// The prefix of the keys of all manifests of one repository.
pub(crate) fn manifests_prefix(name: &str) -> String {
    format!("manifests/{name}@")
}

/// The key of a tag: its value is the digest it stands for.
pub(crate) fn tag_key(name: &str, tag: &str) -> String {
    format!("tags/{name}:{tag}")
}

/// The prefix of the keys of all tags of one repository.
pub(crate) fn tags_prefix(name: &str) -> String {
    format!("tags/{name}:")
}
