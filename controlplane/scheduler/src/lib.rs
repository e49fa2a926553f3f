//! Where a pod goes: a snapshot in, the name of a node out. It waits for nothing and remembers nothing.
//!
//! A node must pass every filter (`filters`); among those that do, the one with the best score (`scores`) is taken. Read `place`.

mod filters;
mod place;
mod quantity;
mod request;
mod scores;
mod selector;
mod snapshot;
pub mod storage;

pub use place::{NodeName, Unschedulable, place};
pub use request::Request;
pub use selector::selects;
pub use snapshot::{NodeState, Snapshot};
pub use storage::Storage;
