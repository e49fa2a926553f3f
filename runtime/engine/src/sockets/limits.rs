//! How much of its embedder a guest's sockets may take: what is buffered for each of them is bounded where it is buffered.

/// How many TCP sockets, connections included, one instance has at most.
pub(super) const STREAM_SOCKETS: usize = 4_096;

/// How many UDP sockets one instance has at most: each has a queue, which is longer than what is on its way by TCP.
pub(super) const DATAGRAM_SOCKETS: usize = 256;

/// How many names one instance looks up at once; more wait.
pub(super) const LOOKUPS: usize = 16;
