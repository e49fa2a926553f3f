//! The replicated state machine: an ordered map from keys to bytes, one revision for everything, and transactions.
//!
//! Pure: the same commands in the same order give the same state on every server, and nothing here reads a clock, a file or
//! a random number. It does not know what a Pod is; keys are paths and values are bytes. Start with [`State::apply`].

mod codec;
mod command;
mod image;
pub mod limits;
mod state;
mod view;

pub use codec::FormatError;
pub use command::{Command, Entry, Key, Outcome, Precondition, Revision, Transaction, UnixSeconds, Write};
pub use image::{Chunks, Image, ImageReader};
pub use state::{Change, LookBack, State};
pub use view::View;
