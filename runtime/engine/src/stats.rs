//! What the engine counts of its guests: relaxed atomics where it happens, a snapshot for whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bounds of durations, in microseconds: from an instantiation to a large compilation.
const BOUNDS_MICROS: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How a request to a function came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest answered.
    Answered,
    /// The guest answered with an error of WASI in place of a response.
    Error,
    /// The guest trapped, or broke its memory limit.
    Trapped,
    /// The guest returned without an answer.
    Unanswered,
    /// It took too long.
    TimedOut,
    /// The function was stopped meanwhile.
    Stopped,
    /// There was no place for it to wait or to run.
    Refused,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 7] = [
        Outcome::Answered,
        Outcome::Error,
        Outcome::Trapped,
        Outcome::Unanswered,
        Outcome::TimedOut,
        Outcome::Stopped,
        Outcome::Refused,
    ];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Error => "error",
            Outcome::Trapped => "trapped",
            Outcome::Unanswered => "unanswered",
            Outcome::TimedOut => "timed_out",
            Outcome::Stopped => "stopped",
            Outcome::Refused => "refused",
        }
    }
}

/// Durations by bucket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Durations {
    /// The upper bound of each bucket in seconds, ascending, the last one infinite, and how many fell into it alone.
    pub buckets: Vec<(f64, u64)>,
    /// Their sum, in seconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

/// What was counted so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Making an instance of a function.
    pub instantiations: Durations,
    /// Making a module ready: from the folder of compiled code, or by compiling it.
    pub loads: Durations,
    /// Requests by their outcome.
    pub requests: Vec<(&'static str, u64)>,
    /// Instances of functions, and processes, now.
    pub instances: u64,
    /// Functions of WASI 0.2 whose code is in memory.
    pub loaded_functions: u64,
    /// Requests that found too many before them.
    pub refusals: u64,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) instantiations: Timer,
    pub(crate) loads: Timer,
    requests: [AtomicU64; Outcome::ALL.len()],
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Counters {
    pub(crate) fn request(&self, outcome: Outcome) {
        self.requests[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One instance more, until what is returned is dropped.
    pub(crate) fn instance(self: &std::sync::Arc<Self>) -> Instance {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Instance(self.clone())
    }

    /// What was counted, beside the functions whose code is in memory now.
    pub(crate) fn snapshot(&self, loaded_functions: u64) -> Stats {
        let requests =
            Outcome::ALL.map(|outcome| (outcome.name(), self.requests[outcome as usize].load(Ordering::Relaxed)));
        let ended = self.ended.load(Ordering::Relaxed);
        Stats {
            instantiations: self.instantiations.snapshot(),
            loads: self.loads.snapshot(),
            refusals: self.requests[Outcome::Refused as usize].load(Ordering::Relaxed),
            requests: requests.to_vec(),
            loaded_functions,
            instances: self.begun.load(Ordering::Relaxed).saturating_sub(ended),
        }
    }
}

/// Counts an instance for as long as it lives.
pub(crate) struct Instance(std::sync::Arc<Counters>);

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A histogram of durations.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Timer {
    pub(crate) fn took(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Durations {
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Durations { buckets, sum: self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9, count }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let timer = Timer::default();
        for micros in [1, 10, 11, 20_000_000] {
            timer.took(Duration::from_micros(micros));
        }
        let durations = timer.snapshot();
        let full: Vec<_> = durations.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(full, [(0.000_01, 2), (0.000_025, 1), (f64::INFINITY, 1)]);
        assert_eq!((durations.count, durations.sum), (4, 20.000_022));
    }

    #[test]
    fn an_instance_counts_while_it_lives() {
        let counters = Arc::new(Counters::default());
        let first = counters.instance();
        let second = counters.instance();
        drop(first);
        counters.request(Outcome::Refused);
        let stats = counters.snapshot(0);
        assert_eq!((stats.instances, stats.refusals), (1, 1));
        assert!(stats.requests.contains(&("refused", 1)) && stats.requests.contains(&("answered", 0)));
        drop(second);
        assert_eq!(counters.snapshot(0).instances, 0);
    }
}
