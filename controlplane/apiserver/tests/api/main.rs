//! The API server against a store of its own, in one process: what a client sends, what it gets.

mod access;
mod crud;
mod deletion;
mod discovery;
mod lists;
mod services;
mod support;
mod watches;
