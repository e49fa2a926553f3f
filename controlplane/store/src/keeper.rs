//! What a store does of its own accord.

use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use shoal_state::{Command, UnixSeconds};

use crate::leader::Leader;
use crate::wal::Wal;

/// How often the leader looks for keys whose time is up.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// How often a server that leads looks for a change of the servers that was left half done.
const LOOK_AT_MEMBERS: Duration = Duration::from_secs(1);

/// How often the size of the log is looked at.
const LOOK_AT_LOG: Duration = Duration::from_secs(2);

/// How long a snapshot may take before it is asked for again.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// Proposes that keys go whose time is up, as long as this server leads.
pub(crate) async fn expire(leader: Leader, now: fn() -> UnixSeconds) {
    while !leader.is_over() {
        tokio::time::sleep(EXPIRE_EVERY).await;
        // Some are taken away at a time.
        while leader.leads() && leader.shared().has_expired(now()) {
            if let Err(error) = leader.propose(&Command::Expire { now: now() }).await {
                tracing::debug!(%error, "what has expired is not taken away yet");
                break;
            }
        }
    }
}

/// Ends a change of the servers whose leader was lost in the middle of it. Until then both the old and the new servers must have a
/// majority, though one that was to go may be gone for ever.
pub(crate) async fn finish_changes(leader: Leader) {
    while !leader.is_over() {
        tokio::time::sleep(LOOK_AT_MEMBERS).await;
        if leader.leads()
            && leader.is_half_changed()
            && let Err(refusal) = leader.finish_change_of_another().await
        {
            tracing::debug!(?refusal, "a change of the servers is half done, and cannot be ended yet");
        }
    }
}

/// Makes a snapshot whenever enough was applied since the last one. The end of the log before it stays, for followers that are a little
/// behind.
pub(crate) async fn make_snapshots(leader: Leader) {
    while !leader.is_over() {
        // In between to see that it is over.
        let is_due = tokio::time::timeout(LOOK_AT_LOG, leader.shared().snapshot_due()).await.is_ok();
        if is_due && let Err(error) = leader.raft().trigger().snapshot().await {
            tracing::debug!(%error, "a snapshot is not made");
        }
    }
}

/// Makes a snapshot, and lets the log before it go, whenever the log has become larger than `most` bytes: a few large objects
/// would fill the disk long before there are enough entries for a snapshot.
pub(crate) async fn keep_log_small(leader: Leader, wal: Wal, most: u64) {
    while !leader.is_over() {
        tokio::time::sleep(LOOK_AT_LOG).await;
        if wal.bytes() > most
            && let Err(error) = make_snapshot(&leader).await
        {
            tracing::warn!(error, "the log is large, and a snapshot in its place could not be made");
        }
    }
}

/// Makes a snapshot of what is applied now, and lets all of the log before it go.
pub(crate) async fn make_snapshot(leader: &Leader) -> Result<(), String> {
    let raft = leader.raft();
    let applied = raft.metrics().borrow_watched().last_applied;
    let Some(applied) = applied else { return Ok(()) };
    raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
    let reached = |metrics: &openraft::RaftMetrics<crate::raft::Types>| metrics.snapshot >= Some(applied);
    raft.wait(Some(SNAPSHOT_DEADLINE)).metrics(reached, "the snapshot").await.map_err(|error| error.to_string())?;
    raft.trigger().purge_log(applied.index).await.map_err(|error| error.to_string())?;
    let reached = |metrics: &openraft::RaftMetrics<crate::raft::Types>| metrics.purged >= Some(applied);
    raft.wait(Some(SNAPSHOT_DEADLINE)).metrics(reached, "the purge").await.map_err(|error| error.to_string())?;
    Ok(())
}
