//! The API server against a store of its own, in one process: what a client sends, what it gets.

mod access;
mod allocations;
mod apply;
mod crud;
mod deletion;
mod discovery;
mod lists;
mod ownership;
mod proxy;
mod storage;
mod streams;
mod support;
mod watches;
