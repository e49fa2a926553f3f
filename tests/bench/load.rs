//! A load: so many clients, each of which sends its next request when it has the answer to the last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::report::Times;

/// What a load achieved.
pub struct Load {
    /// Answers a second.
    pub rate: f64,
    /// How long each took.
    pub times: Times,
}

/// Runs `clients` (any state that a client keeps) for `duration`, each resting for `pause` after an answer; `send` answers when its request is answered as it should be.
///
/// # Errors
/// The first that any client met.
pub async fn drive<C, F, R>(clients: Vec<C>, duration: Duration, pause: Duration, send: F) -> anyhow::Result<Load>
where
    C: Send + 'static,
    F: Fn(C, usize) -> R + Send + Sync + 'static,
    R: Future<Output = anyhow::Result<C>> + Send,
{
    let send = Arc::new(send);
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let send = send.clone();
        running.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < duration {
                let sent = Instant::now();
                client = send(client, number).await?;
                times.push(sent.elapsed().as_secs_f64() * 1_000.0);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = running.join_next().await {
        all.extend(times??);
    }
    Ok(Load { rate: all.len() as f64 / begun.elapsed().as_secs_f64(), times: Times::new(all) })
}
