//! Server-side apply: who owns which field of an object, and what follows from it.
//!
//! An object's `metadata.managedFields` has an entry for each writer with the set of fields that it owns. Whoever
//! applies a configuration owns what stands in it, loses what it no longer names, and is refused what another one owns
//! and wants otherwise; whoever writes in any other way owns what it changed. Source: "Server-Side Apply" and
//! "FieldsV1" in Kubernetes' reference.
//!
//! Everything here is about values and the schema table; the time is a parameter. [`track`] is for ordinary writes,
//! [`apply()`] for an applied configuration. Below them: [`FieldSet`] is a set of paths, `form` says which values are
//! looked into, and one file each collects, compares, merges and removes.

mod apply;
mod codec;
mod collect;
mod compare;
mod conflict;
mod element;
mod form;
mod last_applied;
mod managed;
mod merge;
mod remove;
mod renew;
mod set;
#[cfg(test)]
mod tests;
mod track;

pub use apply::{Applied, ApplyError, Configuration, apply};
pub use conflict::Conflict;
pub use element::Element;
pub use managed::{Entry, Malformed, Managed, Manager, Operation};
pub use set::FieldSet;
pub use track::{only_times_differ, track};

/// Who writes, through which door, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer<'a> {
    /// The field manager: `kubectl`, `helm`.
    pub manager: &'a str,
    /// `apps/v1`.
    pub api_version: &'a str,
    /// `status`; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339 in seconds.
    pub now: &'a str,
}
