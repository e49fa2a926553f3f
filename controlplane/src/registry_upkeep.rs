//! The registry's files on this server, tidied up now and then.

use std::sync::Arc;
use std::time::SystemTime;

use crate::limits;
use crate::server::Core;

/// Removes the blobs that no manifest names and fetches those that are missing, for ever.
pub(crate) async fn keep_tidy(core: Arc<Core>) {
    loop {
        // A server that has just started has better things to do.
        tokio::time::sleep(limits::TIDY_BLOBS).await;
        match core.registry.collect(SystemTime::now()).await {
            Ok(collected) if collected.removed.is_empty() && collected.fetched.is_empty() => {}
            Ok(collected) => tracing::info!(
                removed = collected.removed.len(),
                removed_bytes = collected.removed_bytes,
                fetched = collected.fetched.len(),
                "the registry's blobs were tidied up"
            ),
            // Without a majority there is nothing to go by.
            Err(error) => tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "the registry's blobs were not tidied up"
            ),
        }
    }
}
