//! Images that nobody uses any more: removed when the disk fills up, as the kubelet does (Kubernetes, "Garbage Collection").
//!
//! [`plan`] is pure; [`collector`] looks at the node, decides by it and removes. The node tells of what is there ([`shown`]).

pub mod collector;
pub mod plan;
pub mod shown;
