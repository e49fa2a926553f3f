//! Every limit and deadline of the link, with its unit.

use std::time::Duration;

/// How long a connection may be silent before it is taken for dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a silent connection is touched; well below [`IDLE_TIMEOUT`].
pub const KEEP_ALIVE: Duration = Duration::from_millis(800);

/// How long dialling may take, handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many streams the other side may have open at once on one connection.
pub const STREAMS: u32 = 4096;

/// The buffers of a socket, in bytes, in each direction.
pub const SOCKET_BUFFER: usize = 4 << 20;

/// Flow control of one stream, in bytes.
pub const STREAM_WINDOW: u32 = 1 << 20;

/// Flow control of one connection, in bytes: so many that streams nobody reads at the moment do not stop the others.
pub const CONNECTION_WINDOW: u32 = 256 << 20;

/// How many streams the other side may have open before it has proved who it is.
pub const STRANGER_STREAMS: u32 = 4;

/// Flow control of a connection whose other side has not proved who it is, in bytes.
pub const STRANGER_WINDOW: u32 = 1 << 20;

/// How many connections may wait to be accepted after their handshake.
pub const ACCEPTED: usize = 64;

/// How long opening a stream may take, the kind byte included.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the rest of a request is read whose answer is complete.
pub const LINGER: Duration = Duration::from_secs(10);

/// The wait after the first failed dial of a peer; it doubles up to [`REDIAL_LONGEST`].
pub const REDIAL_FIRST: Duration = Duration::from_millis(50);

/// The longest wait between two dials of one peer.
pub const REDIAL_LONGEST: Duration = Duration::from_secs(1);

/// How long a certificate of a server or a worker is valid.
pub const MEMBER_CERTIFICATE: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long the admin's certificate is valid.
pub const ADMIN_CERTIFICATE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long the cluster's CA is valid.
pub const CA_CERTIFICATE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How far back a new certificate's validity begins, for clocks that are behind.
pub const CLOCK_SLACK: Duration = Duration::from_secs(5 * 60);

/// The largest join request or reply, in bytes.
pub const JOIN_MESSAGE: usize = 256 * 1024;

/// How long a join may take.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The part of a certificate's life after which it is renewed, as a fraction: two thirds.
pub const RENEW_AFTER: (u32, u32) = (2, 3);

/// The wait after a renewal that failed.
pub const RENEW_RETRY: Duration = Duration::from_secs(60);
