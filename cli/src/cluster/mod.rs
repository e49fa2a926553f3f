//! A whole cluster on this machine, each member a process of its own: what `up`, `down` and `demo` share.
//!
//! [`layout`] says where everything is, [`process`] starts and stops one member, [`start`] brings all up in order.

pub mod layout;
pub mod process;
pub mod start;
