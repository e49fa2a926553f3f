//! Every limit of the pods' network, in one place.

use std::time::Duration;

/// How many endpoints one request may try.
pub(crate) const ATTEMPTS: usize = 4;

/// A request body of a known length up to this many bytes is kept, so that another endpoint can be tried.
pub(crate) const REPLAYABLE_BODY_BYTES: u64 = 256 * 1024;

/// How long another node may take to give us a connection before another endpoint is tried.
pub(crate) const NODE_CONNECT: Duration = Duration::from_millis(1_000);

/// How long a local process may take to accept a connection.
pub(crate) const LOCAL_CONNECT: Duration = Duration::from_millis(1_000);

/// How long a node that failed is tried last.
pub(crate) const NODE_SUSPECT: Duration = Duration::from_secs(5);

/// How long a NodePort connection may stay idle between two requests.
pub(crate) const NODE_PORT_HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// How many connections one NodePort listener serves at a time; more wait in the kernel's queue.
pub(crate) const NODE_PORT_CONNECTIONS: usize = 4_096;

/// How many requests of one other node are served at a time.
pub(crate) const PEER_STREAMS: usize = 4_096;

/// How many connections may wait for a process to accept them.
pub(crate) const BACKLOG: usize = 128;

/// Bytes on their way in each direction of a connection in memory.
pub(crate) const PIPE_BYTES: usize = 64 * 1024;

/// How long another node may take to say whether a pod takes a connection.
pub(crate) const NODE_REPLY: Duration = Duration::from_secs(3);

/// Datagrams that wait for their pod, or for the way to another node; more are lost.
pub(crate) const DATAGRAM_QUEUE: usize = 256;

/// How long the way to another node is kept for datagrams while there are none.
pub(crate) const DATAGRAM_LINK_IDLE: Duration = Duration::from_secs(60);

/// How long a NodePort remembers who asked by datagrams, since the last one either way (Linux, `nf_conntrack_udp_timeout_stream`).
pub(crate) const DATAGRAM_FLOW_IDLE: Duration = Duration::from_secs(120);

/// How many such askers one NodePort remembers.
pub(crate) const DATAGRAM_FLOWS: usize = 4_096;
