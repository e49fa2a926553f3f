//! Kubernetes' HTTP contract in front of the replicated store.
//!
//! A request goes one way: path, authentication, authorization, decoding, defaults, admission, validation, one
//! transaction, response. Each step is a small module; none of them knows Raft, QUIC or a controller. What the kinds
//! are (their defaults, checks, columns) stands in `shoal-api`; what is durable is decided by `shoal-store`.
//!
//! Start reading at [`ApiServer::handle`].

mod admission;
mod allocate;
mod authentication;
mod authorization;
mod body;
mod bootstrap;
mod config;
mod continue_token;
mod decode;
mod errors;
mod events;
mod handler;
mod keys;
mod limits;
mod metrics;
mod negotiate;
mod object;
mod outside;
mod ownership;
mod public_paths;
mod query;
mod rbac_cache;
mod request;
mod respond;
mod reviews;
mod selection;
mod server;
mod stored;
mod subresources;
mod tls;
mod verbs;

pub use authentication::service_account_key::{KeyError, ServiceAccountKey};
pub use authentication::user::User;
pub use body::{Body, BoxError};
pub use config::{Config, NodeRequests, NodeUnreachable, Peer};
pub use server::ApiServer;
pub use tls::serve_tls;
