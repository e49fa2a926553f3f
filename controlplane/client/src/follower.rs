//! Following the API: a list, then a watch, then a watch from where that one stopped.
//!
//! Whoever is filled that way moves from one revision to a later one and never back. Only when the API no longer keeps the revision
//! that it stands at is everything listed again. [`crate::Cache`] keeps whole objects; a [`Sink`] keeps what it needs of them.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{Client, ClientError, ListOptions, Object, WatchEvent, limits};

/// Which objects are followed.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// In this namespace; everywhere if empty.
    pub namespace: String,
    /// With these labels.
    pub labels: Option<String>,
    /// With these fields: `spec.nodeName=w1`.
    pub fields: Option<String>,
}

/// What is filled with the objects that are followed.
pub trait Sink<K>: Send + Sync + 'static {
    /// Takes in a list that stands at `revision`: what is not in it is gone.
    fn replace_all(&self, items: Vec<K>, revision: u64);
    /// Takes in one event of a watch; an object that is older than what is here changes nothing.
    fn apply(&self, event: WatchEvent<K>);
    /// The revision that it stands at; 0 before the first list.
    fn revision(&self) -> u64;
}

/// Fills `sink` with what `selection` names, in a task that ends with `stop`.
pub fn follow<K: Object>(sink: impl Sink<K>, client: Client, selection: Selection, stop: CancellationToken) {
    let follower = Follower {
        sink,
        client,
        namespace: selection.namespace,
        options: ListOptions { labels: selection.labels, fields: selection.fields, resource_version: None },
        kind: std::marker::PhantomData::<fn() -> K>,
    };
    // Boxed, because the compiler cannot see through so many borrowing futures that the task may move between threads.
    let follow: BoxFuture<'static, ()> = Box::pin(follower.run());
    shoal_link::tasks::spawn_connection("cache", async move {
        stop.run_until_cancelled_owned(follow).await;
    });
}

struct Follower<K, S> {
    sink: S,
    client: Client,
    namespace: String,
    options: ListOptions,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K: Object, S: Sink<K>> Follower<K, S> {
    async fn run(self) {
        let mut failures = 0;
        loop {
            if let Err(error) = self.list_and_watch(&mut failures).await {
                failures += 1;
                tracing::debug!(kind = K::KIND, %error, "a cache lists again");
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Lists, then watches until only a new list helps.
    async fn list_and_watch(&self, failures: &mut u32) -> Result<(), ClientError> {
        let listed = self.client.list::<K>(&self.namespace, &self.options).await?;
        let revision =
            listed.resource_version.parse().map_err(|_| ClientError::Decode("a list has no revision".to_owned()))?;
        self.sink.replace_all(listed.items, revision);
        *failures = 0;
        loop {
            let before = self.sink.revision();
            match self.watch().await {
                Ok(()) => *failures = 0,
                Err(error) if error.is_expired() => return Err(error),
                Err(error) => {
                    *failures = if self.sink.revision() > before { 1 } else { failures.saturating_add(1) };
                    tracing::debug!(kind = K::KIND, %error, "a watch broke off");
                    tokio::time::sleep(pause(*failures)).await;
                }
            }
        }
    }

    async fn watch(&self) -> Result<(), ClientError> {
        let from = self.sink.revision().to_string();
        let mut watch = self.client.watch::<K>(&self.namespace, &self.options, &from).await?;
        while let Some(event) = watch.next().await? {
            self.sink.apply(event);
        }
        // A server that ends every watch at once would otherwise be asked without a pause.
        tokio::time::sleep(pause(0)).await;
        Ok(())
    }
}

/// Doubles with every failure, up to a longest, and differs from one cache to the next.
fn pause(failures: u32) -> Duration {
    let (first, longest) = limits::RETRY_PAUSES;
    let whole = first.saturating_mul(1 << failures.min(10)).min(longest);
    whole.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}
