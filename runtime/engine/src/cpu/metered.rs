//! A guest's future: while it is polled, time is charged and epochs pass. One that computes for long goes on in the background.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::background::Running;
use super::ticker::TICK;
use super::{Cpu, Meter};

/// For how long a task may compute before it goes on in the background.
const ALLOWANCE: Duration = Duration::from_millis(2);
/// How much slower than it passes time makes up for what was used of the allowance: who uses less than a tenth of a processor
/// stays on the guests' threads.
const REFILL: u32 = 10;

thread_local! {
    /// Since when the guest that is polled on this thread has not been charged, by the thread's clock.
    static UNCHARGED: Cell<Option<Reading>> = const { Cell::new(None) };
    /// Whether its epoch ended, so that it would go on if it were polled again.
    static GAVE_WAY: Cell<bool> = const { Cell::new(false) };
}

/// The epoch of the guest that runs on this thread has ended: charges it, and says how long it must rest.
pub(super) fn charge(meter: &Meter) -> Option<Duration> {
    GAVE_WAY.set(true);
    let since = UNCHARGED.get()?;
    let (used, now) = since.elapsed();
    UNCHARGED.set(Some(now));
    meter.charge(Instant::now(), used)
}

/// What a thread's clock says.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// For guests that seldom compute for an epoch: the time of day costs next to nothing to read.
    Time(Instant),
    /// For the others, whose threads are put aside in the middle of their work: the processor time of the thread.
    Processor(Duration),
}

impl Reading {
    fn now(is_precise: bool) -> Self {
        if is_precise { Self::Processor(super::processor_time()) } else { Self::Time(Instant::now()) }
    }

    /// What has passed since, and what the clock says now.
    fn elapsed(self) -> (Duration, Self) {
        let now = Self::now(matches!(self, Self::Processor(_)));
        (now.since(self), now)
    }

    /// What lies between two readings of one clock.
    fn since(self, earlier: Self) -> Duration {
        match (self, earlier) {
            (Self::Time(now), Self::Time(earlier)) => now.saturating_duration_since(earlier),
            (Self::Processor(now), Self::Processor(earlier)) => now.saturating_sub(earlier),
            _ => Duration::ZERO,
        }
    }
}

/// A guest's future on the guests' threads.
pub(crate) struct Metered<F: Future> {
    place: Place<F>,
    meter: Arc<Meter>,
    cpu: Arc<Cpu>,
    allowance: Allowance,
    /// Whether its epoch ended when it was last polled: from then on it is looked at more closely.
    is_busy: bool,
}

enum Place<F: Future> {
    Here(Pin<Box<F>>),
    /// It computes in the background, until it waits for something or ends.
    There(Running<Outcome<F>>),
    Over,
}

/// How a stay in the background ended.
enum Outcome<F: Future> {
    Ready(F::Output),
    /// It waits: to be polled on the guests' threads.
    Waits(Pin<Box<F>>),
}

impl<F: Future + Send + 'static> Metered<F>
where
    F::Output: Send,
{
    pub(crate) fn new(inner: F, meter: Arc<Meter>, cpu: Arc<Cpu>) -> Self {
        Self {
            place: Place::Here(Box::pin(inner)),
            meter,
            cpu,
            allowance: Allowance::new(Instant::now()),
            is_busy: false,
        }
    }

    fn go(&mut self, inner: Pin<Box<F>>) {
        let stay = Stay { inner: Some(inner), meter: self.meter.clone(), cpu: self.cpu.clone() };
        self.place = Place::There(self.cpu.background.spawn(self.meter.share(), stay));
    }
}

impl<F: Future + Send + 'static> Future for Metered<F>
where
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut came_back = false;
        loop {
            match std::mem::replace(&mut self.place, Place::Over) {
                Place::Over => unreachable!("it has ended"),
                Place::There(mut running) => match Pin::new(&mut running).poll(context) {
                    Poll::Pending => {
                        self.place = Place::There(running);
                        return Poll::Pending;
                    }
                    Poll::Ready(Outcome::Ready(output)) => return Poll::Ready(output),
                    Poll::Ready(Outcome::Waits(inner)) => {
                        // Polled once more, so that what it waits for wakes this task.
                        came_back = true;
                        self.place = Place::Here(inner);
                    }
                },
                Place::Here(mut inner) => {
                    let began = Instant::now();
                    if !came_back && !self.allowance.is_left(began) {
                        self.go(inner);
                        continue;
                    }
                    let is_busy = self.is_busy;
                    let polled = poll_guest(&mut inner, &self.meter, &self.cpu, is_busy, context);
                    self.is_busy = polled.gave_way;
                    // By the time of day it was put aside, too: it counts as the epoch that has ended.
                    let used = if polled.gave_way && !is_busy { polled.used.min(TICK) } else { polled.used };
                    let now = Instant::now();
                    self.allowance.use_up(now, used);
                    match polled.output {
                        Poll::Ready(output) => return Poll::Ready(output),
                        // If it gave way it has woken itself.
                        Poll::Pending if !polled.gave_way || self.allowance.is_left(now) => {
                            self.place = Place::Here(inner);
                            return Poll::Pending;
                        }
                        Poll::Pending => self.go(inner),
                    }
                }
            }
        }
    }
}

/// How a guest was polled.
struct Polled<T> {
    output: Poll<T>,
    /// Whether it would go on at once if its epoch had not ended.
    gave_way: bool,
    used: Duration,
}

/// Polls a guest and charges it, by processor time if that is asked for.
fn poll_guest<F: Future>(
    inner: &mut Pin<Box<F>>,
    meter: &Meter,
    cpu: &Cpu,
    is_precise: bool,
    context: &mut Context<'_>,
) -> Polled<F::Output> {
    let began = Reading::now(is_precise);
    UNCHARGED.set(Some(began));
    GAVE_WAY.set(false);
    cpu.ticker.enter();
    let output = inner.as_mut().poll(context);
    cpu.ticker.leave();
    let (used, now) = began.elapsed();
    if let Some(since) = UNCHARGED.take() {
        // A debt from a poll that gave way by itself is collected at the next epoch.
        meter.charge(Instant::now(), now.since(since));
    }
    Polled { output, gave_way: GAVE_WAY.get(), used }
}

/// A guest's future in the background: ends when it has ended or waits for something.
struct Stay<F: Future> {
    inner: Option<Pin<Box<F>>>,
    meter: Arc<Meter>,
    cpu: Arc<Cpu>,
}

impl<F: Future> Future for Stay<F> {
    type Output = Outcome<F>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<F>> {
        let Some(mut inner) = self.inner.take() else { unreachable!("it has ended") };
        let polled = poll_guest(&mut inner, &self.meter, &self.cpu, true, context);
        match polled.output {
            Poll::Ready(output) => Poll::Ready(Outcome::Ready(output)),
            // An epoch that ended, or a rest that its limit gives it: it has more to compute.
            Poll::Pending if polled.gave_way => {
                self.inner = Some(inner);
                Poll::Pending
            }
            Poll::Pending => Poll::Ready(Outcome::Waits(inner)),
        }
    }
}

/// How long a task may still compute on the guests' threads.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    used: Duration,
    reckoned: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { used: Duration::ZERO, reckoned: now }
    }

    fn is_left(&mut self, now: Instant) -> bool {
        self.use_up(now, Duration::ZERO);
        self.used < ALLOWANCE
    }

    fn use_up(&mut self, now: Instant, used: Duration) {
        let made_up = now.saturating_duration_since(self.reckoned) / REFILL;
        self.reckoned = now;
        // However long it computed: after ten times its allowance it is back.
        self.used = (self.used.saturating_sub(made_up) + used).min(ALLOWANCE * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_little_stays_and_who_computes_goes() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut light = Allowance::new(start);
        for turn in 1..1_000 {
            light.use_up(at(turn * 1_000), Duration::from_micros(80));
            assert!(light.is_left(at(turn * 1_000)), "{turn}");
        }
        let mut heavy = Allowance::new(start);
        heavy.use_up(at(1_000), Duration::from_micros(1_000));
        assert!(heavy.is_left(at(1_000)));
        heavy.use_up(at(2_300), Duration::from_micros(1_300));
        assert!(!heavy.is_left(at(2_300)));
        heavy.use_up(at(900_000), Duration::from_millis(800));
        assert!(!heavy.is_left(at(910_000)));
        assert!(heavy.is_left(at(921_000)));
    }
}
