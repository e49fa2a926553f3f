//! What the API was told of a pod's status, and when it is to be told more.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodStatus;
use tokio::time::Instant;

use crate::limits::{STARTING_QUIET, WRITE_RETRY_FIRST, WRITE_RETRY_LONGEST};
use crate::reporting::{is_starting, says};

/// What the API was told.
enum Told {
    /// Nothing, or nothing that it is certain to have.
    Nothing,
    /// This, which may be on its way still.
    This(Arc<PodStatus>),
    /// What the pod's object says.
    WhatIsInPod,
}

/// Where one pod's reports are. There is at most one on its way.
pub struct Telling {
    told: Told,
    is_writing: bool,
    failures: u32,
    retry_at: Option<Instant>,
    /// Until when a pod that is only starting is not reported.
    quiet_until: Instant,
    /// Whether a status waits for that.
    is_quiet: bool,
}

impl Telling {
    /// Of a pod that nobody was told of.
    pub fn new(now: Instant) -> Self {
        Self {
            told: Told::Nothing,
            is_writing: false,
            failures: 0,
            retry_at: None,
            quiet_until: now + STARTING_QUIET,
            is_quiet: false,
        }
    }

    /// Of a pod whose object says what the API was told.
    pub fn up_to_date(now: Instant) -> Self {
        Self { told: Told::WhatIsInPod, ..Self::new(now) }
    }

    /// Whether the API was told `status`; `said` is what the pod's object says.
    pub fn knows(&self, said: Option<&PodStatus>, status: &PodStatus) -> bool {
        match &self.told {
            Told::Nothing => false,
            Told::This(told) => **told == *status,
            Told::WhatIsInPod => said.is_some_and(|said| says(said, status)),
        }
    }

    /// Whether the API has what the pod's object says.
    pub fn has(&self, said: Option<&PodStatus>) -> bool {
        !self.is_writing && self.was_told(said)
    }

    fn was_told(&self, said: Option<&PodStatus>) -> bool {
        match &self.told {
            Told::Nothing => false,
            Told::This(told) => said.is_some_and(|said| says(said, told)),
            Told::WhatIsInPod => true,
        }
    }

    /// The pod's object says something else from now on.
    pub fn object_changed(&mut self) {
        if matches!(self.told, Told::WhatIsInPod) {
            self.told = Told::Nothing;
        }
    }

    /// The API's own object says what the pod's does.
    pub fn confirmed(&mut self) {
        // One that is on its way would still come after this.
        if !self.is_writing {
            self.told = Told::WhatIsInPod;
        }
    }

    /// What it was told is lost.
    pub fn lost(&mut self) {
        self.told = Told::Nothing;
    }

    /// The status to write now, if one is: none while another is on its way or is to be tried again later, and none of a pod that has
    /// only begun to start.
    pub fn next(&mut self, status: PodStatus, now: Instant) -> Option<Arc<PodStatus>> {
        self.is_quiet = false;
        if self.is_busy() {
            return None;
        }
        self.is_quiet = now < self.quiet_until && is_starting(&status);
        if self.is_quiet {
            return None;
        }
        self.is_writing = true;
        let status = Arc::new(status);
        self.told = Told::This(Arc::clone(&status));
        Some(status)
    }

    /// There is nothing to write now.
    pub fn nothing_new(&mut self) {
        self.is_quiet = false;
    }

    /// The API has the status that was on its way; `said` is what the pod's object says.
    pub fn written(&mut self, said: Option<&PodStatus>) {
        self.is_writing = false;
        self.failures = 0;
        if self.was_told(said) {
            self.told = Told::WhatIsInPod;
        }
    }

    /// The status that was on its way may not have arrived.
    pub fn not_written(&mut self, now: Instant) {
        self.is_writing = false;
        self.told = Told::Nothing;
        self.failed(now);
    }

    /// The API could not be told something: not again before a while.
    pub fn failed(&mut self, now: Instant) {
        let pause = WRITE_RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(WRITE_RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause);
    }

    /// Whether nothing may be told now.
    pub fn is_busy(&self) -> bool {
        self.is_writing || self.retry_at.is_some()
    }

    /// Whether the API has everything, and nothing waits.
    pub fn is_over(&self) -> bool {
        matches!(self.told, Told::WhatIsInPod) && !self.is_busy() && !self.is_quiet
    }

    /// When there may be more to tell.
    pub fn wake_at(&self) -> Option<Instant> {
        let quiet = self.is_quiet.then_some(self.quiet_until);
        [self.retry_at, quiet].into_iter().flatten().min()
    }

    /// Lets what was to be tried again at a time go on when it has come.
    pub fn pass(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|at| *at > now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn status(phase: &str) -> PodStatus {
        PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }
    }

    #[test]
    fn one_report_at_a_time_and_the_newest_next() {
        let now = Instant::now() + STARTING_QUIET;
        let mut telling = Telling::new(now - STARTING_QUIET);
        let (running, ended) = (status("Running"), status("Succeeded"));
        assert!(telling.next(running.clone(), now).is_some_and(|status| *status == running));
        assert!(telling.knows(None, &running) && !telling.knows(None, &ended));
        assert_eq!(telling.next(ended.clone(), now), None, "the first is on its way");
        telling.written(Some(&running));
        assert!(telling.is_over() && telling.has(Some(&running)));
        telling.object_changed();
        assert!(!telling.is_over());
        assert!(telling.next(ended, now).is_some());
    }

    #[test]
    fn what_may_not_have_arrived_is_told_again_after_a_pause_that_grows() {
        let mut now = Instant::now() + STARTING_QUIET;
        let mut telling = Telling::new(now - STARTING_QUIET);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            assert!(telling.next(status("Running"), now).is_some());
            telling.not_written(now);
            assert!(!telling.knows(None, &status("Running")));
            assert_eq!(telling.next(status("Running"), now), None);
            let at = telling.wake_at().expect("it is tried again");
            pauses.push(at - now);
            now = at;
            telling.pass(now);
        }
        assert!(
            pauses.is_sorted() && pauses[0] == WRITE_RETRY_FIRST && pauses[19] == WRITE_RETRY_LONGEST,
            "{pauses:?}"
        );
    }

    #[test]
    fn a_pod_that_only_starts_is_told_of_when_it_takes_long() {
        let now = Instant::now();
        let mut telling = Telling::new(now);
        assert_eq!(telling.next(status("Pending"), now), None);
        assert_eq!(telling.wake_at(), Some(now + STARTING_QUIET));
        assert!(telling.next(status("Failed"), now + Duration::from_millis(1)).is_some(), "something went wrong");
        let mut telling = Telling::new(now);
        assert!(telling.next(status("Pending"), now + STARTING_QUIET).is_some());
    }

    #[test]
    fn the_watch_does_not_confirm_what_is_still_on_its_way() {
        let now = Instant::now() + STARTING_QUIET;
        let mut telling = Telling::new(now - STARTING_QUIET);
        telling.next(status("Running"), now).expect("a report");
        telling.confirmed();
        assert!(!telling.is_over());
        telling.written(None);
        telling.confirmed();
        assert!(telling.is_over());
        telling.lost();
        assert!(!telling.is_over() && !telling.knows(Some(&status("Running")), &status("Running")));
    }
}
