//! The one place that spawns: every task has a name, a span, and a stated fate when it fails.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Spawns the work for one connection, request or stream: it ends with its peer, and its failure is that peer's alone.
///
/// It is not waited for at shutdown; what must be waited for belongs to a [`Tasks`].
pub fn spawn_connection(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work.instrument(tracing::debug_span!("connection", name)))
}

/// The long-lived tasks of one part of a process, ended together.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: tokio_util::task::TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the tasks are to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Spawns `work`, whose failure is logged and ends only this task.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let work = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                outcome = AssertUnwindSafe(work).catch_unwind() => if outcome.is_err() {
                    tracing::error!(task = name, "a task panicked and is over");
                },
            }
        };
        self.tracker.spawn(work.instrument(tracing::info_span!("task", name)));
    }

    /// Spawns work that is not cut off when the tasks are to end, but told so by the token it is given, and waited for.
    pub fn spawn_draining<F, R>(&self, name: &'static str, work: F)
    where
        F: FnOnce(CancellationToken) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let work = AssertUnwindSafe(work(self.stop.clone())).catch_unwind();
        let work = async move {
            if work.await.is_err() {
                tracing::error!(task = name, "a task panicked and is over");
            }
        };
        self.tracker.spawn(work.instrument(tracing::info_span!("task", name)));
    }

    /// Spawns `work` without which the process is of no use: when it ends or panics before the others are to end,
    /// [`Tasks::failed`] is cancelled, and the process should stop.
    pub fn spawn_essential(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let failed = self.failed.clone();
        self.spawn(name, async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task panicked");
            }
            tracing::error!(task = name, "a task that this process cannot do without is over");
            failed.cancel();
        });
    }

    /// Cancelled when a task is over that the process cannot do without.
    pub fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    /// Spawns `work` again and again: when it ends or panics it is started anew after a pause, until all are to end.
    pub fn spawn_restarting<F, R>(&self, name: &'static str, pause: Duration, work: F)
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            while !stop.is_cancelled() {
                if AssertUnwindSafe(work()).catch_unwind().await.is_err() {
                    tracing::error!(task = name, "a task panicked and is started again");
                }
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Ends all tasks and waits for them, at most for `deadline`; answers whether all are over.
    pub async fn end(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}
