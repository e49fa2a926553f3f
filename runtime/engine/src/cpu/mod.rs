//! The CPU: who runs when guests want more of it than there is.
//!
//! Guests give way every millisecond, at the end of an epoch, and one with a limit rests when its share of the period is used
//! (`meter`). What a guest uses is the time inside `poll` of its future: it is charged when the poll ends and at every epoch in
//! between. Whoever answers or waits runs on the guests' threads; a task that has computed for longer than its allowance goes on
//! in the `background`, on threads that the system runs when nobody else wants the processor, so that a request that comes in
//! never waits for it. There, guests share by the weight of what they requested (`queue`).

mod background;
mod meter;
mod metered;
mod queue;
mod ticker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, UpdateDeadline};

use self::background::Background;
pub(crate) use self::meter::{Meter, Quota};
pub(crate) use self::metered::Metered;
use self::ticker::Ticker;

/// How urgent guests are: less than their embedder.
const NICENESS: i32 = 5;

/// What keeps the time of an engine's guests.
pub(crate) struct Cpu {
    ticker: Arc<Ticker>,
    background: Background,
}

impl Cpu {
    /// For the guests of `engines`, with so many threads for each of the background's two purposes. They start with the first
    /// guest that needs them, and poll within the runtime that they start from.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn new(engines: Vec<wasmtime::EngineWeak>, threads: usize) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { ticker: Ticker::start(engines)?, background: Background::new(threads) }))
    }

    /// Guests of this engine too.
    pub(crate) fn add(&self, engine: &wasmtime::Engine) {
        self.ticker.add(engine.weak());
    }
}

/// Lets `store` give way at every epoch, and rest when `meter` says so.
pub(crate) fn meter_store<T>(store: &mut Store<T>, meter: &Arc<Meter>) {
    store.set_epoch_deadline(1);
    let meter = meter.clone();
    store.epoch_deadline_callback(move |_| {
        Ok(match metered::charge(&meter) {
            None => UpdateDeadline::Yield(1),
            Some(rest) => UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(rest))),
        })
    });
}

/// Lets the embedder's threads go first where there are more threads than processors: of the calling thread alone.
pub(crate) fn step_back() {
    // Where it is forbidden guests are as urgent as their embedder; nothing depends on it.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// The processor time of the calling thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
