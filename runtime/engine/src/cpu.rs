//! The CPU: guests give way every millisecond, and a guest with a limit waits when its share of the period is used.
//!
//! Compiled code looks at a counter, the epoch, which a thread raises every millisecond while any guest runs. What a guest uses is
//! the time inside `poll` of its future: it is charged when the poll ends and at every epoch in between.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline};

/// The length of an epoch.
const TICK: Duration = Duration::from_millis(1);

/// The period over which a limit holds.
const PERIOD: Duration = Duration::from_millis(100);

thread_local! {
    /// Since when the guest that is polled on this thread has not been charged.
    static UNCHARGED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Raises the epoch of the engines while guests run, and rests while none does.
#[derive(Debug)]
pub(crate) struct Ticker {
    running: AtomicUsize,
    over: AtomicBool,
    thread: std::thread::Thread,
}

impl Ticker {
    /// Starts the thread. It ends when the ticker is dropped.
    pub(crate) fn start(engines: Vec<wasmtime::EngineWeak>) -> std::io::Result<Arc<Self>> {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<std::sync::Weak<Self>>(1);
        let handle = std::thread::Builder::new().name("epochs".to_string()).spawn(move || {
            let Ok(ticker) = receiver.recv() else { return };
            tick(&ticker, &engines);
        })?;
        let ticker = Arc::new(Self {
            running: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            thread: handle.thread().clone(),
        });
        // The thread waits for exactly this, so that there is a place in the channel.
        let _ = sender.send(Arc::downgrade(&ticker));
        Ok(ticker)
    }

    fn enter(&self) {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.thread.unpark();
        }
    }

    fn leave(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn tick(ticker: &std::sync::Weak<Ticker>, engines: &[wasmtime::EngineWeak]) {
    loop {
        let Some(strong) = ticker.upgrade() else { return };
        let busy = strong.running.load(Ordering::Acquire) > 0;
        drop(strong);
        if busy {
            std::thread::sleep(TICK);
            for engine in engines.iter().filter_map(wasmtime::EngineWeak::upgrade) {
                engine.increment_epoch();
            }
        } else {
            // A guest that enters between the look and this has left its mark: the park returns at once.
            std::thread::park();
        }
    }
}

/// What one guest, with all its instances, uses and may use.
#[derive(Debug)]
pub(crate) struct Meter {
    total_micros: AtomicU64,
    limit: Option<Mutex<Quota>>,
}

#[derive(Debug)]
struct Quota {
    each_period: Duration,
    period: Instant,
    used: Duration,
}

impl Meter {
    /// `limit` is in thousandths of a core.
    pub(crate) fn new(limit: Option<u32>) -> Arc<Self> {
        let quota = |millis: u32| {
            Mutex::new(Quota {
                each_period: PERIOD * millis.max(1) / 1000,
                period: Instant::now(),
                used: Duration::ZERO,
            })
        };
        Arc::new(Self { total_micros: AtomicU64::new(0), limit: limit.map(quota) })
    }

    /// The time used so far.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_micros(self.total_micros.load(Ordering::Relaxed))
    }

    /// Charges what this thread used since it was last charged; answers for how long the guest must rest.
    fn charge(&self, now: Instant, since: Instant) -> Option<Duration> {
        let used = now.saturating_duration_since(since);
        self.total_micros.fetch_add(u64::try_from(used.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut quota = self.limit.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        quota.charge(now, used)
    }
}

impl Quota {
    fn charge(&mut self, now: Instant, used: Duration) -> Option<Duration> {
        // What was used above the share is owed in the periods that follow.
        while now.saturating_duration_since(self.period) >= PERIOD {
            self.period += PERIOD;
            self.used = self.used.saturating_sub(self.each_period);
            if self.used.is_zero() && now.saturating_duration_since(self.period) >= PERIOD {
                self.period = now;
            }
        }
        self.used += used;
        (self.used >= self.each_period).then(|| (self.period + PERIOD).saturating_duration_since(now))
    }
}

/// Lets `store` give way at every epoch, and rest when `meter` says so.
pub(crate) fn meter_store<T>(store: &mut Store<T>, meter: &Arc<Meter>) {
    store.set_epoch_deadline(1);
    let meter = meter.clone();
    store.epoch_deadline_callback(move |_| {
        let now = Instant::now();
        let rest = UNCHARGED.replace(Some(now)).and_then(|since| meter.charge(now, since));
        let Some(rest) = rest else { return Ok(UpdateDeadline::Yield(1)) };
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(rest))))
    });
}

/// A guest's future: while it is polled, time is charged and epochs pass.
pub(crate) struct Metered<F> {
    inner: Pin<Box<F>>,
    meter: Arc<Meter>,
    ticker: Arc<Ticker>,
}

impl<F> Metered<F> {
    pub(crate) fn new(inner: F, meter: Arc<Meter>, ticker: Arc<Ticker>) -> Self {
        Self { inner: Box::pin(inner), meter, ticker }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        UNCHARGED.set(Some(Instant::now()));
        self.ticker.enter();
        let polled = self.inner.as_mut().poll(context);
        self.ticker.leave();
        if let Some(since) = UNCHARGED.take() {
            // A debt from a poll that gave way by itself is collected at the next epoch.
            self.meter.charge(Instant::now(), since);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_used_early_means_rest_until_the_period_ends() {
        let start = Instant::now();
        let mut quota = Quota { each_period: PERIOD / 5, period: start, used: Duration::ZERO };
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(quota.charge(at(10), Duration::from_millis(10)), None);
        assert_eq!(quota.charge(at(20), Duration::from_millis(10)), Some(Duration::from_millis(80)));
        assert_eq!(quota.charge(at(105), Duration::from_millis(5)), None);
        assert_eq!(quota.charge(at(120), Duration::from_millis(15)), Some(Duration::from_millis(80)));
    }

    #[test]
    fn what_is_used_above_the_share_is_owed() {
        let start = Instant::now();
        let mut quota = Quota { each_period: PERIOD / 10, period: start, used: Duration::ZERO };
        let at = |millis| start + Duration::from_millis(millis);
        assert!(quota.charge(at(35), Duration::from_millis(35)).is_some());
        assert!(quota.charge(at(101), Duration::from_millis(1)).is_some());
        assert!(quota.charge(at(1000), Duration::from_millis(1)).is_none());
    }
}
