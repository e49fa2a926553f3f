//! One probe's memory: what counts as a change of mind. Pure; the worker asks and waits.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use super::observed::ProbeKind;

/// A probe's numbers, with Kubernetes' defaults for what is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The wait after the container's start.
    pub initial_delay: Duration,
    /// From one attempt to the next.
    pub period: Duration,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// Successes in a row that mean success.
    pub success_threshold: u32,
    /// Failures in a row that mean failure.
    pub failure_threshold: u32,
}

impl Timing {
    /// Reads the fields.
    pub fn of(probe: &Probe) -> Timing {
        let seconds = |value: Option<i32>, default: i32| {
            Duration::from_secs(u64::try_from(value.unwrap_or(default)).unwrap_or(0))
        };
        let count = |value: Option<i32>, default: i32| u32::try_from(value.unwrap_or(default)).unwrap_or(1).max(1);
        Timing {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }
}

/// The run of equal results so far.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    is_success: Option<bool>,
    run: u32,
}

impl Verdict {
    /// Counts a result; `Some` says what the threshold that is now reached means. It is said again for each further result,
    /// so that a listener that missed it hears it.
    pub fn count(&mut self, timing: &Timing, success: bool) -> Option<bool> {
        self.run = if self.is_success == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.is_success = Some(success);
        let threshold = if success { timing.success_threshold } else { timing.failure_threshold };
        (self.run >= threshold).then_some(success)
    }
}

/// The word of the event and of messages.
pub fn name(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_are_kubernetes_own() {
        let timing = Timing::of(&Probe::default());
        assert_eq!((timing.period.as_secs(), timing.timeout.as_secs(), timing.initial_delay.as_secs()), (10, 1, 0));
        assert_eq!((timing.success_threshold, timing.failure_threshold), (1, 3));
    }

    proptest! {
        #[test]
        fn a_verdict_needs_its_threshold_in_a_row(results in prop::collection::vec(any::<bool>(), 1..40), success in 1u32..4, failure in 1u32..4) {
            let timing = Timing { success_threshold: success, failure_threshold: failure, ..Timing::of(&Probe::default()) };
            let mut verdict = Verdict::default();
            for (index, result) in results.iter().enumerate() {
                let said = verdict.count(&timing, *result);
                let run = results[..=index].iter().rev().take_while(|r| *r == result).count() as u32;
                let wanted = run >= if *result { success } else { failure };
                prop_assert_eq!(said, wanted.then_some(*result));
            }
        }
    }
}
