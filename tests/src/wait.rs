//! Waiting for a state.

use std::time::{Duration, Instant};

/// Calls `look` until it gives a value, at most for `deadline`; what it said last is in the error.
///
/// # Errors
/// When the deadline passes first.
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > deadline => {
                return Err(error.context(format!("after {} s still not: {what}", deadline.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
