//! The pods' network in user space: one table look-up in place of bridges, iptables and a DNS server.
//!
//! [`Table`] is pure: Services, their endpoints and the nodes behind them. [`LocalPods`] says what runs on this node.
//! [`Network`] puts both together and carries HTTP requests: to a function of this node by a call, to a process of this
//! node by its port, to another node over a QUIC link. [`NodePorts`] keeps the listeners that lead in from outside.
//! This crate knows no Kubernetes object; the agent translates.

mod body;
mod connect;
mod dial;
mod forward;
mod limits;
mod local;
mod name;
mod node_ports;
mod peers;
mod table;

pub use body::{refusal, text_response};
pub use connect::ByteStream;
pub use dial::send_http;
pub use forward::{Network, NetworkError};
pub use local::{HttpTarget, LocalPods, LocalTarget, Refused};
pub use name::{Destination, destination};
pub use node_ports::{BindError, NodePorts};
pub use peers::serve_peer;
pub use table::{Endpoint, Service, ServiceName, ServicePort, Table};

pub use shoal_link::http::{Body, BoxError};
