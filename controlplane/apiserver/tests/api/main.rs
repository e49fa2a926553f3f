//! The API server against a store of its own, in one process: what a client sends, what it gets.

mod access;
mod allocations;
mod crud;
mod deletion;
mod discovery;
mod lists;
mod support;
mod watches;
