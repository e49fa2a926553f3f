//! Every bound of the API server, by name and with its unit.

use std::time::Duration;

/// The largest request body that is read, in bytes.
pub const BODY_BYTES: usize = 3 * 1024 * 1024;
/// How long a client may take to send its request body.
pub const BODY_READ: Duration = Duration::from_secs(30);
/// Requests that may be in work at once, watches and log streams not counted.
pub const IN_FLIGHT: usize = 400;
/// Watches and log streams that may be open at once.
pub const LONG_RUNNING: usize = 10_000;
/// Connections that may be open at once on the TLS port.
pub const CONNECTIONS: usize = 10_000;
/// How long a client may take for the TLS handshake.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// How long open requests may go on after the order to stop.
pub const DRAIN: Duration = Duration::from_secs(5);
/// What a refused client is told to wait, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// Watch frames that may wait for a slow client before its watch stops reading the store.
pub const WATCH_BUFFER_FRAMES: usize = 64;
/// How long one watch frame may wait for its client before the watch is cut.
pub const WATCH_SEND: Duration = Duration::from_secs(30);
/// The time between two bookmarks of a watch.
pub const BOOKMARK: Duration = Duration::from_secs(60);
/// How long a watch lasts when its client names no `timeoutSeconds`.
pub const WATCH_DEFAULT: Duration = Duration::from_secs(1800);
/// How long a write or a linearizable read may wait for the store.
pub const STORE: Duration = Duration::from_secs(30);
/// How long a read waits for a revision that the client has seen elsewhere.
pub const NOT_OLDER_THAN: Duration = Duration::from_secs(3);
/// How often a read-modify-write (a patch, an update without a version, a delete) is tried against other writers.
pub const UPDATE_TRIES: usize = 16;
/// The longest name of a field manager that is made of a user agent, in characters.
pub const MANAGER_CHARACTERS: usize = 128;
/// How often a generated name that is taken is replaced by another.
pub const GENERATED_NAME_TRIES: usize = 8;
/// How often an allocation of an address or port that lost a race is repeated.
pub const ALLOCATION_TRIES: usize = 16;
/// The lifetime of a requested service-account token, when the request names none.
pub const TOKEN_DEFAULT_SECONDS: i64 = 3600;
/// The shortest lifetime that a token may be asked for.
pub const TOKEN_MIN_SECONDS: i64 = 600;
/// The longest lifetime that a token may be asked for (2^32 s, as in Kubernetes).
pub const TOKEN_MAX_SECONDS: i64 = 1 << 32;

/// How long a node's agent may take to say what is used there.
pub const NODE_SUMMARY: Duration = Duration::from_secs(3);
