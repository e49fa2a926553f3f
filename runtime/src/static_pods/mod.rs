//! Pods of manifests in a directory of this node (static pods): they run whatever the API says, and without it.
//!
//! [`manifest`] reads a file, [`mirror`] decides what the API is told; both are pure. [`directory`] looks at the files again
//! and again, and [`mirrors`] keeps a mirror pod in the API for each pod, so that kubectl shows it. A mirror's deletion does not
//! end the pod: it is made again.

pub mod directory;
pub mod manifest;
pub mod mirror;
pub mod mirrors;
