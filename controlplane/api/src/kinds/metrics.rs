//! What nodes and pods use now: answered from what their agents say, and never stored.

use crate::resource::Resource;

/// The group of both.
pub const GROUP: &str = "metrics.k8s.io";

const METRICS: Resource = Resource { group: GROUP, version: "v1beta1", verbs: &["get", "list"], ..Resource::BASE };

pub(super) const NODE: Resource = Resource {
    kind: "NodeMetrics",
    plural: "nodes",
    singular: "node",
    namespaced: false,
    schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics",
    ..METRICS
};
pub(super) const POD: Resource = Resource {
    kind: "PodMetrics",
    plural: "pods",
    singular: "pod",
    schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics",
    ..METRICS
};
