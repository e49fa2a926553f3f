//! Runs one WebAssembly program within limits: an HTTP function, an instance per request, or a process to its exit.
//!
//! It knows no Kubernetes: it is given a module, [`Grants`], and nothing else, and a guest has what the grants name and nothing
//! else. Guests run on threads of their own, so that a busy one never delays whoever embeds the engine. Start with `engine`
//! and `module`; `memory` and `cpu` are the limits, `function` and `process` the two ways to run.

mod cache;
mod code;
mod concurrent;
mod cpu;
mod engine;
mod error;
mod function;
mod grants;
mod group;
mod hooks;
mod host;
mod input;
mod limits;
mod machine;
mod memory;
mod module;
mod outgoing;
mod output;
mod process;
mod sockets;
mod stats;
mod stop;
mod usage;

pub use engine::{Engine, EngineConfig};
pub use error::{LoadError, StartError};
pub use function::Function;
pub use grants::{Body, BoxError, Grants, LogSink, NoOutbound, Outbound, OutboundError, Preopen, Reuse};
pub use group::Group;
pub use input::{Stdin, StdinWriter};
pub use module::{Kind, Module};
pub use process::{Exit, ExitReason, Process};
pub use sockets::{Accepted, ByteStream, Datagram, Datagrams, Listener, ReadWrite, SocketFailure, Sockets};
pub use stats::{Durations, Stats};
pub use usage::Usage;
