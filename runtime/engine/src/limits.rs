//! What a guest may have the host hold for it: none of this is in the guest's own memory, whose limit does not see it.

/// Resources of one instance: its sockets, streams, requests, files and what it waits for. One that wants more traps.
pub(crate) const RESOURCES: usize = 32 * 1024;

/// Bytes of one set of header fields that a guest makes, with what the host needs to hold them.
pub(crate) const FIELD_BYTES: usize = 32 * 1024;

/// Bytes of a body that a guest writes at once; two such pieces may wait for whoever reads it.
pub(crate) const BODY_PIECE_BYTES: usize = 64 * 1024;

/// HTTP requests of one guest, all its instances together, that are on their way or whose answers are not read; more wait.
pub(crate) const OUTGOING_REQUESTS: usize = 1_024;
