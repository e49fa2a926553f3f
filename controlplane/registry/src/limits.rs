//! Every limit of the registry, with its unit.

use std::time::Duration;

/// The largest manifest that is taken, in bytes. The distribution specification asks for 4 MiB at least.
pub const MANIFEST_BYTES: usize = 1 << 20;

/// The largest blob that is taken, in bytes.
pub const BLOB_BYTES: u64 = 2 << 30;

/// How many uploads may be open at once on one server.
pub const UPLOADS: usize = 256;

/// An upload that was not touched for this long may be dropped to make room.
pub const UPLOAD_IDLE: Duration = Duration::from_secs(10 * 60);

/// How many rows a listing gives when the client names no number, and at most.
pub const PAGE: usize = 1000;

/// A blob that no manifest names is kept for this long after it was last pushed or asked for by someone who pushes: the manifest that
/// will name it may be under way.
pub const UNNAMED_GRACE: Duration = Duration::from_secs(60 * 60);
