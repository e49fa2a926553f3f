//! The engine and the image store behind [`Guests`].

use futures_util::future::BoxFuture;

use crate::config::AgentConfig;
use crate::guests::{Guests, ImageRequest, PrepareError, Prepared};
use crate::uplink::Uplink;

/// The worker's engine.
pub struct EngineGuests;

impl EngineGuests {
    /// Opens it.
    pub fn open(_config: &AgentConfig, _uplink: Uplink) -> anyhow::Result<EngineGuests> {
        anyhow::bail!("this build has no engine")
    }
}

impl Guests for EngineGuests {
    fn prepare(&self, image: ImageRequest) -> BoxFuture<'_, Result<Prepared, PrepareError>> {
        Box::pin(async move { Err(PrepareError { reason: "ErrImagePull", message: format!("no engine for {}", image.reference) }) })
    }
}
