//! The encryption keys of the cluster: every server has all of them in its file; a new one travels through the store.
//!
//! A server's files are always readable with the keys in its own file: a new ring is written there before anything is sealed with
//! it, and everything is sealed anew after that.

use std::sync::Arc;
use std::time::Duration;

use shoal_store::seal::Keyring;
use shoal_store::{CommitError, Store, Transaction, View, WatchEvent};

use crate::data_dir::DataDir;
use crate::limits;
use crate::server::Core;

/// The key in the store that has the newest ring, once it was changed.
const KEY: &str = "/shoal/encryption-keys";

/// How often a rotation is tried again when another one is faster.
const TRIES: usize = 5;

/// Takes over the cluster's ring whenever it changes, for ever.
pub(crate) async fn follow(core: Arc<Core>, directory: DataDir) {
    loop {
        let view = core.store.view();
        if let Err(error) = take_over(&core, &directory, &view).await {
            tracing::error!(error = format!("{error:#}"), "the new encryption keys are not in use here yet");
            tokio::time::sleep(limits::RETRY_KEYS).await;
            continue;
        }
        let Ok(mut watch) = core.store.watch(KEY, view.revision()) else { continue };
        loop {
            match watch.next().await {
                Some(Ok(WatchEvent::Progress(_))) => {}
                Some(_) => break,
                // The store is closed.
                None => return,
            }
        }
    }
}

async fn take_over(core: &Core, directory: &DataDir, view: &View) -> anyhow::Result<()> {
    let ring = &core.keys.ring;
    if let Some(newest) = newest(view)?.filter(|newest| !ring.covers(newest)) {
        let all = Keyring::parse(&ring.render())?;
        all.adopt(&newest);
        directory.save_ring(&all)?;
        ring.adopt(&newest);
        directory.save_cluster_keys(&core.keys)?;
        tracing::info!(key = ring.active(), "new encryption keys are in use");
    }
    // Also after a restart in the middle of it.
    core.store.reseal().await.map_err(anyhow::Error::msg)
}

fn newest(view: &View) -> anyhow::Result<Option<Keyring>> {
    view.get(KEY).map(|entry| Ok(Keyring::parse(std::str::from_utf8(&entry.value)?)?)).transpose()
}

/// Adds a new key, with which all servers seal from now on; answers its id.
pub(crate) async fn rotate(core: &Core) -> anyhow::Result<u32> {
    for _ in 0..TRIES {
        core.store.read_barrier().await?;
        let view = core.store.view();
        let ring = newest(&view)?.unwrap_or_else(|| core.keys.ring.clone()).rotated()?;
        match put(&core.store, &view, &ring).await {
            Ok(()) => return Ok(ring.active()),
            Err(CommitError::PreconditionFailed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("others change the keys at the same time: look at them, then try again")
}

async fn put(store: &Store, view: &View, ring: &Keyring) -> Result<(), CommitError> {
    let mut transaction = Transaction::default();
    match view.get(KEY) {
        Some(entry) => transaction.require_modified_at(KEY, entry.modified),
        None => transaction.require_absent(KEY),
    };
    transaction.put(KEY, ring.render());
    store.commit(transaction).await.map(drop)
}

/// Waits until this server's files need no other key than `key`, for a bounded time; answers whether it came to that.
pub(crate) async fn wait_until_sealed_with(core: &Core, key: u32, patience: Duration) -> bool {
    let sealed = async {
        while core.keys.ring.active() < key || !core.store.is_sealed_with_active_key().unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience, sealed).await.is_ok()
}
