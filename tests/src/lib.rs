//! The harness of the end-to-end tests: a cluster of real processes, real kubectl and Helm, and patience.
//!
//! [`Cluster`] starts and stops `shoal up`; [`Tool`] runs kubectl and Helm against it; [`eventually`] waits for a state, never
//! for a time; [`suite`] runs the cases one after another against one cluster and says how it went; [`signing`] signs images.

mod cluster;
mod http;
mod memory;
pub mod signing;
pub mod suite;
mod tools;
mod wait;

pub use cluster::{Cluster, free_ports};
pub use http::{Answer, get, send};
pub use memory::Growth;
pub use tools::{Output, Tool, Tools};
pub use wait::eventually;
