//! One control-plane server, put together: its identity, its store, its API, its links, and the loops while it leads.
//!
//! Nothing is decided here about pods or objects; this crate only connects the parts. Read `server` first: what starts in
//! which order, and what stops in which.

mod admission;
mod backups;
mod catalog;
mod config;
mod data_dir;
mod founding;
mod internal;
mod keys;
mod leadership;
mod limits;
mod link_service;
mod local_transport;
mod loops;
mod members;
mod peers;
mod place;
mod registry_access;
mod registry_peers;
mod registry_upkeep;
mod repair;
mod restore;
mod route;
mod server;
mod standing;
mod tokens;
mod workers;

pub use config::{Backups, ConfigFile, DEFAULT_PORT, Join, Profile, ServerConfig};
pub use restore::{Restored, restore};
pub use server::Server;
pub use shoal_link::token::{JoinRole, JoinToken};
pub use shoal_store::backup;
pub use shoal_store::seal::Keyring;
