//! The kinds, one file each: a row of the resource table, the defaults, the checks, the columns.
//!
//! `pod_spec` and `pod_template` are shared by all that hold a pod.

mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
pub(crate) mod ephemeral_containers;
mod event;
mod lease;
pub(crate) mod metrics;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_columns;
pub(crate) mod pod_gates;
mod pod_names;
mod pod_resources;
mod pod_spec;
mod pod_spec_checks;
mod pod_template;
mod rbac;
mod replica_set;
mod reviews;
mod secret;
mod service;
mod service_account;
mod storage;
pub(crate) mod storage_class;
#[cfg(test)]
mod tests;

use crate::resource::Resource;

/// The table. Discovery shows groups and resources in this order.
pub(crate) const RESOURCES: &[Resource] = &[
    config_map::ROW,
    endpoints::ROW,
    event::ROW,
    namespace::ROW,
    node::ROW,
    persistent_volume_claim::ROW,
    persistent_volume::ROW,
    pod::ROW,
    secret::ROW,
    service_account::ROW,
    service::ROW,
    deployment::ROW,
    replica_set::ROW,
    event::EVENTS_ROW,
    reviews::TOKEN_REVIEW,
    reviews::SELF_SUBJECT_REVIEW,
    reviews::LOCAL_SUBJECT_ACCESS_REVIEW,
    reviews::SELF_SUBJECT_ACCESS_REVIEW,
    reviews::SELF_SUBJECT_RULES_REVIEW,
    reviews::SUBJECT_ACCESS_REVIEW,
    rbac::CLUSTER_ROLE_BINDING,
    rbac::CLUSTER_ROLE,
    rbac::ROLE_BINDING,
    rbac::ROLE,
    lease::ROW,
    endpoint_slice::ROW,
    storage_class::ROW,
    metrics::NODE,
    metrics::POD,
];

/// Requests of HTTP through the API server.
const fn proxy(kind: &'static str) -> crate::resource::Subresource {
    let verbs = &["create", "delete", "get", "patch", "update"];
    crate::resource::Subresource { name: "proxy", group: "", version: "v1", kind, verbs }
}

/// The status as a subresource of the kind itself.
const fn status(group: &'static str, kind: &'static str) -> crate::resource::Subresource {
    crate::resource::Subresource { name: "status", group, version: "v1", kind, verbs: &["get", "patch", "update"] }
}
