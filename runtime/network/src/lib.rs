//! The pods' network in user space: one table look-up in place of bridges, iptables and a DNS server.
//!
//! [`Table`] is pure: Services, their endpoints and the nodes behind them. [`LocalPods`] says what runs on this node.
//! [`Network`] puts both together and carries HTTP requests, connections of any protocol and datagrams: to a function of
//! this node by a call, to a process of this node by its queue, to another node over a QUIC link. [`Listeners`] keeps the
//! listeners that lead in from outside.
//! This crate knows no Kubernetes object; the agent translates.

mod body;
mod datagrams;
mod dial;
mod flows;
mod forward;
mod limits;
mod listeners;
mod local;
mod name;
mod node_datagrams;
mod peers;
mod ports;
mod resolve;
mod streams;
mod table;
mod wire;

pub use body::{refusal, text_response};
pub use datagrams::is_ready_endpoint;
pub use dial::send_http;
pub use flows::Flows;
pub use forward::{Network, NetworkError};
pub use listeners::{BindError, Door, Listeners, NodePort};
pub use local::{HttpTarget, LocalPods, LocalTarget, Refused};
pub use name::{Destination, destination};
pub use node_datagrams::DATAGRAM_BYTES;
pub use peers::serve_peer;
pub use ports::{ByteStream, DatagramPort, Incoming, Inlet, ProcessPort, ReadWrite, StreamPort};
pub use resolve::{Lookup, PodNames, lookups};
pub use table::{Endpoint, Member, NodeNetwork, Protocol, Service, ServiceName, ServicePort, Table};
pub use wire::Datagram;

pub use shoal_link::http::{Body, BoxError};
