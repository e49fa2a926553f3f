//! Waiting for something that becomes true by itself.

use std::time::{Duration, Instant};

/// How long anything of a local cluster may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often to look.
const PAUSE: Duration = Duration::from_millis(25);

/// An error that ends the waiting: what is waited for can no longer come.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Hopeless(pub String);

/// Calls `look` until it succeeds.
///
/// # Errors
/// When it is [`Hopeless`], and the last failure when [`DEADLINE`] has passed, with `what` was waited for.
pub async fn until<T, R>(what: &str, look: impl Fn() -> R) -> anyhow::Result<T>
where
    R: Future<Output = anyhow::Result<T>>,
{
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is::<Hopeless>() => return Err(error),
            Err(error) if begun.elapsed() > DEADLINE => {
                return Err(error.context(format!("after {} s still not: {what}", DEADLINE.as_secs())));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
