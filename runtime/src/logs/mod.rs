//! Container logs: files in the CRI's format, written by [`ContainerLog`] and read by [`read`].
//!
//! A line is `2026-01-02T03:04:05.000000006Z stdout F text`; `P` in place of `F` says that the next line goes on with this
//! one. One directory a pod and container holds one file a run, `<restart>.log`, and its rotated predecessors
//! `<restart>.log.<number>`, the highest number the newest.

pub mod line;
pub mod read;
mod write;

pub use write::{ContainerLog, LogDirectory, LogProgress, Stream};
