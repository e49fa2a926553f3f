//! What an image may be at most. A registry is not trusted, so that everything read from one has a limit.

use std::time::Duration;

/// Bytes of a manifest, an index or an image's configuration.
pub(crate) const DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a module.
pub(crate) const MODULE_BYTES: u64 = 1024 * 1024 * 1024;

/// Layers of a container image, bytes of one as it is sent, and as it is read when it is unpacked.
pub(crate) const LAYERS: usize = 128;
pub(crate) const LAYER_BYTES: u64 = 2 * 1024 * 1024 * 1024;
pub(crate) const LAYER_UNPACKED_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// How many links are followed to the module of a container image.
pub(crate) const LINKS: usize = 8;

/// How many credentials are remembered by which one image was had, and how many keys that signed it.
pub(crate) const FINGERPRINTS: usize = 16;

/// How many signatures of an image are looked at, of each form.
pub(crate) const SIGNATURES: usize = 64;

/// Bytes of one signature with all that is signed.
pub(crate) const SIGNATURE_BYTES: usize = 1024 * 1024;

/// How long a remote registry may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a remote registry may be silent within a response.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(60);
