//! SPDY/3.1 as a carrier, the server's side, as far as Kubernetes' clients use it: many streams over one connection.
//!
//! Source: the SPDY Protocol, Draft 3.1. There is no flow control: the clients have none, so windows are neither kept nor told; what
//! one stream does not read holds up its connection.

mod connection;
mod frame;
mod headers;

pub use connection::{Connection, SpdyStream, serve};
pub use frame::{Frame, FrameError, Reader, Writer};
pub use headers::Headers;
