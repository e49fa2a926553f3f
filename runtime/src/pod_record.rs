//! A pod as it is kept on disk.

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::pod::Observed;

/// The collection of the local store that holds pods, by uid.
pub const COLLECTION: &str = "pods";

/// The object and what happened to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodRecord<P = Pod, O = Observed> {
    /// The object as the API had it last.
    pub pod: P,
    /// What happened.
    pub observed: O,
}
