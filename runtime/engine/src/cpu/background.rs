//! Where guests go on that compute without end: threads that the system runs when nobody else wants the processor.
//!
//! They have the system's idle priority, so that whoever is woken, a guest's thread or the agent's, runs at once in their place.
//! Where the machine is busy with something else, further threads, as urgent as the guests' own, run those that get less than
//! they requested, and now and then whoever has waited for long: nobody starves.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_task::Runnable;
use tokio::runtime::Handle;

use super::queue::{RunQueue, Share};

/// How often it is looked whether somebody is owed.
const LOOK: Duration = Duration::from_millis(5);

/// The background of one engine. Its threads end with it.
pub(super) struct Background {
    shared: Arc<Shared>,
    threads: usize,
    is_started: OnceLock<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// For the threads that run when nobody else does: there is something to run, or all is over.
    is_ready: Condvar,
    /// For the others: there is something again, or all is over.
    is_busy: Condvar,
}

#[derive(Default)]
struct State {
    queue: RunQueue<Runnable>,
    is_over: bool,
}

/// Who takes from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Everybody by weight, while the machine has nothing else to do.
    Spare,
    /// Those that get less than they requested, or nothing.
    Owed,
}

impl Background {
    pub(super) fn new(threads: usize) -> Self {
        Self { shared: Arc::default(), threads: threads.max(1), is_started: OnceLock::new() }
    }

    /// Runs `work` here, as a part of what `share`'s guest does. Called within the runtime whose timers it uses.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        share: Share,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Running<T> {
        self.is_started.get_or_init(|| self.start(&Handle::current()));
        let shared = Arc::clone(&self.shared);
        let schedule = move |runnable| shared.push(share, runnable);
        let (runnable, task) = async_task::Builder::new().propagate_panic(true).spawn(move |()| work, schedule);
        runnable.schedule();
        Running(task)
    }

    fn start(&self, runtime: &Handle) {
        for purpose in [Purpose::Spare, Purpose::Owed] {
            for _ in 0..self.threads {
                let (shared, runtime) = (Arc::clone(&self.shared), runtime.clone());
                let name = if purpose == Purpose::Spare { "guest-spare" } else { "guest-owed" };
                let run = move || {
                    let _runtime = runtime.enter();
                    step_back(purpose);
                    shared.work(purpose);
                };
                if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(run) {
                    tracing::error!(%error, "no thread for guests that compute");
                }
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        let left = std::mem::take(&mut state.queue);
        drop(state);
        drop(left);
        self.shared.is_ready.notify_all();
        self.shared.is_busy.notify_all();
    }
}

/// Lets everybody else go first: of the calling thread alone.
fn step_back(purpose: Purpose) {
    if purpose == Purpose::Owed {
        super::step_back();
    } else if let Err(error) = idle_priority() {
        // It is less polite then, and still right.
        tracing::warn!(%error, "guests that compute cannot be given the idle priority");
        super::step_back();
    }
}

#[expect(unsafe_code, reason = "no safe wrapper of this call is in the graph")]
fn idle_priority() -> std::io::Result<()> {
    // SAFETY: the structure lives during the call, which only reads it; 0 is the calling thread.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &libc::sched_param { sched_priority: 0 }) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, share: Share, runnable: Runnable) {
        let mut state = self.lock();
        if state.is_over {
            // Dropped, and its guest with it, when the lock is free again.
            drop(state);
            return;
        }
        let was_empty = state.queue.is_empty();
        state.queue.push(share, runnable, Instant::now());
        drop(state);
        self.is_ready.notify_one();
        if was_empty {
            self.is_busy.notify_all();
        }
    }

    fn work(&self, purpose: Purpose) {
        while let Some((guest, runnable)) = self.take(purpose) {
            let began = super::processor_time();
            // A panic within is told to whoever waits for the task.
            runnable.run();
            let used = super::processor_time().saturating_sub(began);
            self.lock().queue.charge(guest, used, Instant::now());
        }
    }

    /// The next task for a thread of this purpose, as soon as there is one; none when all is over.
    fn take(&self, purpose: Purpose) -> Option<(u64, Runnable)> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            let task = match purpose {
                Purpose::Spare => state.queue.take(),
                Purpose::Owed => state.queue.take_owed(Instant::now()),
            };
            if task.is_some() {
                return task;
            }
            state = match purpose {
                Purpose::Spare => self.is_ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Purpose::Owed if state.queue.is_empty() => {
                    self.is_busy.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
                Purpose::Owed => self.is_busy.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

/// Work in the background. Dropping it ends it.
pub(super) struct Running<T>(async_task::Task<T>);

impl<T> Future for Running<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}
