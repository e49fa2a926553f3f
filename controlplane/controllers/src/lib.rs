//! What must change so that the cluster is as its objects say: one file a controller, each a pure function.
//!
//! A controller is told what there is and what time it is, and answers with [`Action`]s. It keeps no memory, waits for nothing
//! and does not care what changed. After its own actions it has nothing to do. Read `action`, then `replica_set`.

pub mod action;
pub mod deployment;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod garbage;
mod local_volume;
pub mod namespace;
pub mod node;
mod pods;
pub mod replica_set;
pub mod service_account;
pub mod volume;
pub mod volume_claim;

pub use action::{Action, EventKind, Kind, Target, Thing};
pub use pods::{is_active, is_ready};
pub use shoal_scheduler::selects;
