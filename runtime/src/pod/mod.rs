//! What the agent knows and decides of one pod; everything here but [`directory`] is pure.
//!
//! [`Observed`] is what happened, [`pod_actions`] says what to do next, [`pod_status`] says what to report. The worker
//! (`crate::worker`) carries the actions out and feeds what came of them back as [`Happening`]s.

pub mod actions;
pub mod back_off;
pub mod claims;
pub mod directory;
pub mod environment;
pub mod ephemeral;
pub mod expand;
pub mod fields;
pub mod function_settings;
pub mod host_paths;
pub mod host_ports;
pub mod names;
pub mod observed;
pub mod probe;
pub mod references;
pub mod resources;

pub mod service_env;
pub mod spec;
pub mod status;
pub mod support;
pub mod tokens;
pub mod volumes;

#[cfg(test)]
mod properties;

pub use actions::{PodAction, next_wake, pod_actions};
pub use observed::{Happening, Observed};
pub use status::pod_status;
