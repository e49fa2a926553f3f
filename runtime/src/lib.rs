//! The node agent: it observes its pods, decides, acts and reports.
//!
//! [`Agent`] joins a cluster, registers its Node and runs the pods that are bound to it. Decisions are pure and live in
//! [`pod`]; one worker a pod carries them out. Everything that it needs to go on without a control plane is in its own
//! store. Guests run on the engine's threads, never on the agent's.

mod addresses;
mod agent;
#[cfg(test)]
mod agent_tests;
mod allocator;
mod cluster_table;
mod config;
mod container;
mod context;
mod disk_use;
mod engine_guests;
mod events;
pub mod eviction;
mod exec;
mod follow;
mod function_target;
mod groups;
mod guests;
mod hooks;
mod host_ports;
mod image_gc;
mod image_policies;
mod join;
mod keeper;
mod kubelet_api;
mod last_words;
mod limits;
mod local_api;
mod local_store;
pub mod logs;
mod memory_volumes;
mod metrics;
mod mount;
mod node;
mod node_loop;
mod node_state;
mod outbound;
mod outbound_policy;
mod packed;
mod persistent;
mod places;
pub mod pod;
mod pod_datagrams;
mod pod_feed;
mod pod_grpc;
mod pod_http;
mod pod_proxy;
mod pod_record;
mod pod_sockets;
mod pod_view;
mod pods;
mod probing;
mod pull_secrets;
mod reach;
mod renewal;
mod reporting;
mod resting;
mod shutdown;
mod sources;
mod static_pods;
mod sub_path;
mod summary;
mod telling;
#[cfg(test)]
mod test_network;
mod tokens;
mod uplink;
mod usage;
mod worker;
mod world_names;

pub use agent::Agent;
pub use allocator::few_arenas;
pub use config::{AgentConfig, Pace};
