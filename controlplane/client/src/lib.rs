//! The cluster's API as its own processes use it: typed requests, watches, and caches that follow them.
//!
//! How a request travels is a [`Transport`]: inside the process, over a link, or over TLS from a kubeconfig. Read `client`,
//! then `cache`. It decides nothing: what to write is the caller's business.

mod cache;
mod client;
mod error;
mod follower;
pub mod kubeconfig;
pub mod limits;
mod link_transport;
mod object;
mod recorder;
mod tls_transport;
mod transport;
mod watch;

pub use cache::{Cache, Snapshot, Update};
pub use client::{Client, DeleteOptions, ListOptions, Listed, Patch, Propagation};
pub use error::ClientError;
pub use follower::{Selection, Sink, follow};
pub use kubeconfig::Kubeconfig;
pub use link_transport::LinkTransport;
pub use object::{Object, ObjectKey, collection_path, key_of, object_path, revision_of};
pub use recorder::{EventKind, Recorder};
pub use tls_transport::TlsTransport;
pub use transport::{Body, BoxError, Transport, TransportError, bytes_body, empty_body};
pub use watch::{Frames, WatchEvent, WatchStream};
