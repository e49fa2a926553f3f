//! A client that follows one server's changes, through that server's deaths.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use shoal_client::{Client, ListOptions, WatchEvent};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a watch may take to tell what was written before.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The objects, as the events leave them.
    pub objects: BTreeMap<String, String>,
    /// Up to where everything was seen.
    pub revision: u64,
    /// The first thing that no watch may say.
    pub wrong: Option<anyhow::Error>,
}

/// A watcher at work.
pub struct Watcher {
    task: JoinHandle<Seen>,
    progress: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl Watcher {
    /// Follows the ConfigMaps of `default` from just after `start`, going on after each failure where it was.
    pub fn start(runtime: &Runtime, client: Client, start: u64) -> Self {
        let (sender, progress) = watch::channel(start);
        let stop = CancellationToken::new();
        Self { task: runtime.spawn(follow(client, sender, stop.clone())), progress, stop }
    }

    /// What it saw, once it has seen everything up to `revision` or cannot go on.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub async fn finish(mut self, revision: u64) -> anyhow::Result<Seen> {
        let there = tokio::time::timeout(PATIENCE, self.progress.wait_for(|seen| *seen >= revision)).await;
        self.stop.cancel();
        let seen = self.task.await.context("a watcher panicked")?;
        anyhow::ensure!(there.is_ok(), "a watch came to {} and no further: {revision} was written", seen.revision);
        Ok(seen)
    }
}

async fn follow(client: Client, progress: watch::Sender<u64>, stop: CancellationToken) -> Seen {
    let mut seen = Seen { revision: *progress.borrow(), ..Seen::default() };
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => {}
            ended = follow_once(&client, &mut seen, &progress) => if let Err(error) = ended {
                seen.wrong = Some(error);
                return seen;
            },
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    seen
}

/// Until the watch breaks, which is no failure.
async fn follow_once(client: &Client, seen: &mut Seen, progress: &watch::Sender<u64>) -> anyhow::Result<()> {
    let opened = client.watch::<ConfigMap>("default", &ListOptions::default(), &seen.revision.to_string()).await;
    let mut events = match opened {
        Ok(events) => events,
        Err(error) if error.is_expired() => anyhow::bail!("the revision {} is no longer kept", seen.revision),
        Err(_) => return Ok(()),
    };
    while let Ok(Some(event)) = events.next().await {
        seen.take(event)?;
        progress.send_replace(seen.revision);
    }
    Ok(())
}

impl Seen {
    fn take(&mut self, event: WatchEvent<ConfigMap>) -> anyhow::Result<()> {
        let (object, is_there) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
            WatchEvent::Deleted(object) => (object, false),
            WatchEvent::Bookmark(revision) => {
                self.revision = self.revision.max(revision.parse()?);
                return Ok(());
            }
        };
        let name = object.metadata.name.unwrap_or_default();
        let revision: u64 = object.metadata.resource_version.unwrap_or_default().parse()?;
        anyhow::ensure!(revision > self.revision, "{name}: {revision} was told after {}", self.revision);
        self.revision = revision;
        if is_there {
            let value = object.data.and_then(|mut data| data.remove("value")).unwrap_or_default();
            self.objects.insert(name, value);
        } else {
            anyhow::ensure!(self.objects.remove(&name).is_some(), "{name} was deleted without having been there");
        }
        Ok(())
    }
}
