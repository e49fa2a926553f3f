//! What a controller wants done: data that can be printed, compared, counted and refused.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde_json::Value;

/// A kind of the API with standard metadata. Implemented for all that qualify.
pub trait Kind: Resource + Metadata<Ty = ObjectMeta> + Serialize + Clone {}

impl<K: Resource + Metadata<Ty = ObjectMeta> + Serialize + Clone> Kind for K {}

/// Which object an action is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// `pods`.
    pub plural: String,
    /// Empty for kinds without.
    pub namespace: String,
    /// Empty when the API is to choose it.
    pub name: String,
}

impl Target {
    /// The object itself.
    pub fn of<K: Kind>(object: &K) -> Self {
        let metadata = object.metadata();
        Self::named::<K>(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }

    /// The object of kind `K` with this name.
    pub fn named<K: Kind>(namespace: &str, name: &str) -> Self {
        Self {
            api_version: K::API_VERSION.to_owned(),
            kind: K::KIND.to_owned(),
            plural: K::URL_PATH_SEGMENT.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Whether an event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// One thing to do. Every write holds what must still be true: a version, a uid, or that nothing is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create `object`; one of that name there already is not an error but a reason to look again.
    Create {
        /// Where.
        target: Target,
        /// What, whole.
        object: Value,
    },
    /// Replace an object, if it is still of the version that `object` carries.
    Replace {
        /// Which.
        target: Target,
        /// `status`, `finalize`, or empty for the object but its status.
        subresource: &'static str,
        /// The object, whole.
        object: Value,
    },
    /// Merge `patch` into an object; `patch` carries the version it was made for.
    Patch {
        /// Which.
        target: Target,
        /// An RFC 7386 merge patch.
        patch: Value,
    },
    /// Delete an object, if it is still the one with this uid.
    Delete {
        /// Which.
        target: Target,
        /// Its uid.
        uid: String,
        /// How long a pod may take; `None` for what it says itself.
        grace_seconds: Option<i64>,
    },
    /// Delete an object, if the API confirms that none of these owners exists any more.
    DeleteOrphan {
        /// Which.
        target: Target,
        /// Its uid.
        uid: String,
        /// All its owners and their uids; an empty uid stands for whatever bears the name.
        owners: Vec<(Target, String)>,
        /// How long a pod may take; `None` for what it says itself.
        grace_seconds: Option<i64>,
    },
    /// Delete all objects of a kind in a namespace that no cache holds.
    DeleteAll {
        /// The kind and the namespace; no name.
        target: Target,
    },
    /// Have a node remove the directory of a volume, if the API confirms that none of these claims exists any more. A node that
    /// is gone for ever has taken it along.
    RemoveDirectory {
        /// The node.
        node: Target,
        /// The name of the volume.
        volume: String,
        /// The claims that had it, and their uids.
        claims: Vec<(Target, String)>,
    },
    /// Tell people.
    Event {
        /// About what.
        target: Target,
        /// Its uid.
        uid: String,
        /// How bad.
        kind: EventKind,
        /// One word.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
    /// Nothing now; look again at this moment even if nothing changes.
    LookAgain {
        /// When.
        at: Timestamp,
    },
}

impl Action {
    /// Creates `object`.
    pub fn create<K: Kind>(object: &K) -> Self {
        Self::Create { target: Target::of(object), object: value(object) }
    }

    /// Replaces `object`, which carries the version that it was read at.
    pub fn replace<K: Kind>(object: &K) -> Self {
        Self::Replace { target: Target::of(object), subresource: "", object: value(object) }
    }

    /// Replaces the status of `object`, which carries the version that it was read at.
    pub fn replace_status<K: Kind>(object: &K) -> Self {
        Self::Replace { target: Target::of(object), subresource: "status", object: value(object) }
    }

    /// Deletes `object`.
    pub fn delete<K: Kind>(object: &K) -> Self {
        Self::Delete {
            target: Target::of(object),
            uid: object.metadata().uid.clone().unwrap_or_default(),
            grace_seconds: None,
        }
    }

    /// Tells people about `object`.
    pub fn event<K: Kind>(object: &K, kind: EventKind, reason: &'static str, message: String) -> Self {
        Self::Event {
            target: Target::of(object),
            uid: object.metadata().uid.clone().unwrap_or_default(),
            kind,
            reason,
            message,
        }
    }
}

/// The object as JSON.
pub(crate) fn value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("API objects have string keys only")
}

/// What all kinds have in common, for the controllers that look at all kinds.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    /// Which object.
    pub target: Target,
    /// Its uid.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// Who owns it.
    pub owners: Vec<OwnerReference>,
    /// What must happen before it may vanish.
    pub finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
}

impl Thing {
    /// The common part of `object`.
    pub fn of<K: Kind>(object: &K) -> Self {
        let metadata = object.metadata();
        Self {
            target: Target::of(object),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            is_deleting: metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The reference by which `owner` controls what it makes.
pub(crate) fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.metadata().name.clone().unwrap_or_default(),
        uid: owner.metadata().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The uid of the controller of an object.
pub(crate) fn controller_uid(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}
