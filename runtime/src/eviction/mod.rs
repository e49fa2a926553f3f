//! When the node ends a pod: it uses more disk than it may, or the node runs out of something. Unused images go before.
//!
//! [`storage`], [`threshold`], [`watch`], [`pressure`] and [`rank`] are pure; [`evictor`] looks at the node ([`signals`]), decides by
//! them and tells the pod's worker. The rules and the texts are the kubelet's (Kubernetes, "Node-pressure Eviction").

pub mod by_signal;
pub mod evictor;
pub mod pressure;
pub mod rank;
pub mod signals;
pub mod storage;
pub mod threshold;
pub mod watch;

/// The reason of a pod that was evicted, in its status and in the event.
pub const EVICTED: &str = "Evicted";
