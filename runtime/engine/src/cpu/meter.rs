//! What a guest uses of the CPU, and how long it must rest when its limit says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::queue::Share;
use crate::group::Group;

/// The period over which a limit holds.
const PERIOD: Duration = Duration::from_millis(100);

/// The number of the next guest.
static NEXT_GUEST: AtomicU64 = AtomicU64::new(0);

/// What one guest, with all its instances, uses and may use.
#[derive(Debug)]
pub(crate) struct Meter {
    share: Share,
    total_micros: AtomicU64,
    limit: Option<Quota>,
    group: Option<Arc<Group>>,
}

/// A share of each period, for whoever is charged to it.
#[derive(Debug)]
pub(crate) struct Quota(Mutex<Account>);

#[derive(Debug)]
struct Account {
    each_period: Duration,
    period: Instant,
    used: Duration,
}

impl Meter {
    /// Limit and request are in thousandths of a core.
    pub(crate) fn new(limit: Option<u32>, request: u32, group: Option<Arc<Group>>) -> Arc<Self> {
        let share = Share { guest: NEXT_GUEST.fetch_add(1, Ordering::Relaxed), request_millis: request };
        Arc::new(Self { share, total_micros: AtomicU64::new(0), limit: limit.map(Quota::new), group })
    }

    /// What the guest may claim where there is not enough for all.
    pub(super) fn share(&self) -> Share {
        self.share
    }

    /// The time used so far.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_micros(self.total_micros.load(Ordering::Relaxed))
    }

    /// Charges what a thread used; answers for how long the guest must rest.
    pub(super) fn charge(&self, now: Instant, used: Duration) -> Option<Duration> {
        self.total_micros.fetch_add(u64::try_from(used.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let own = self.limit.as_ref().and_then(|quota| quota.charge(now, used));
        let of_group = self.group.as_ref().and_then(|group| group.cpu.as_ref()?.charge(now, used));
        own.max(of_group)
    }
}

impl Quota {
    /// So many thousandths of a core.
    pub(crate) fn new(millis: u32) -> Self {
        let each_period = PERIOD * millis.max(1) / 1000;
        Self(Mutex::new(Account { each_period, period: Instant::now(), used: Duration::ZERO }))
    }

    fn charge(&self, now: Instant, used: Duration) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).charge(now, used)
    }
}

impl Account {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_used_early_means_rest_until_the_period_ends() {
        let start = Instant::now();
        let mut quota = Account { each_period: PERIOD / 5, period: start, used: Duration::ZERO };
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(quota.charge(at(10), Duration::from_millis(10)), None);
        assert_eq!(quota.charge(at(20), Duration::from_millis(10)), Some(Duration::from_millis(80)));
        assert_eq!(quota.charge(at(105), Duration::from_millis(5)), None);
        assert_eq!(quota.charge(at(120), Duration::from_millis(15)), Some(Duration::from_millis(80)));
    }

    #[test]
    fn what_is_used_above_the_share_is_owed() {
        let start = Instant::now();
        let mut quota = Account { each_period: PERIOD / 10, period: start, used: Duration::ZERO };
        let at = |millis| start + Duration::from_millis(millis);
        assert!(quota.charge(at(35), Duration::from_millis(35)).is_some());
        assert!(quota.charge(at(101), Duration::from_millis(1)).is_some());
        assert!(quota.charge(at(1000), Duration::from_millis(1)).is_none());
    }

    #[test]
    fn guests_of_a_group_rest_when_they_have_used_its_share_together() {
        let group = Group::new(None, Some(200));
        let [first, second] = [(); 2].map(|()| Meter::new(Some(150), 0, Some(group.clone())));
        let now = Instant::now();
        assert_eq!(first.charge(now, Duration::from_millis(12)), None);
        assert!(second.charge(now, Duration::from_millis(12)).is_some(), "the group's share is used");
        assert_eq!((first.total(), second.total()), (Duration::from_millis(12), Duration::from_millis(12)));
    }
}
