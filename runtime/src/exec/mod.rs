//! Commands in a running container, and the streams to it: exec, attach, port-forward, and commands that the agent itself runs
//! (probes and hooks).
//!
//! A command is a fresh instance that shares the container's directories, variables and network: of the container's own program
//! when it is one that runs commands, or of the toolbox, which has the few commands that people and `kubectl cp` need. Servers
//! speak to it in messages (`shoal_streams`), over the body of one request and its answer.

mod attach;
mod capture;
mod choice;
mod live;
mod options;
mod pipe;
mod port_forward;
mod session;
mod start;
mod status;
mod terminal;

pub use attach::attach;
pub use capture::run;
pub use live::{Live, LiveLog};
pub use port_forward::port_forward;
pub use session::exec;
