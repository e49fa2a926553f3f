//! What the Kubernetes API says: the resources, their defaults, checks and columns, and the rules around them.
//!
//! Everything here is pure: no time, no randomness, no files, no network; what is needed of these is a parameter.
//! Objects are `serde_json::Value`s, because a server must keep and patch what it was sent. Begin with
//! [`resource::Resource`]: one row a resource, from which discovery, tables and verbs follow.

pub mod decode;
pub mod discovery;
pub mod fields;
pub mod image_policy;
mod kinds;
pub mod metadata;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod rbac;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod subresource;
pub mod table;
pub mod validation;

pub use status::Status;
pub use validation::{FieldError, FieldErrorKind};
