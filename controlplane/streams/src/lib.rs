//! The streams that kubectl opens to a container: exec, attach and port-forward, over WebSocket or SPDY/3.1.
//!
//! Clients speak many dialects; nodes speak one. Between a server and a node a remote command is a flow of [`Message`]s each way
//! ([`encode`] and [`Decoder`] put them on a byte stream), and a forwarded connection is plain bytes each way. This crate
//! translates: [`websocket`] and [`spdy`] are the two carriers, [`remote_command`] and [`port_forward`] what goes over them.
//! It knows no pod and no server; bytes of a client are never trusted.

mod duplex;
mod message;
pub mod port_forward;
pub mod remote_command;
pub mod spdy;
pub mod websocket;

pub use duplex::Duplex;
pub use message::{Channel, DecodeError, Decoder, MAX_MESSAGE, Message, encode};
