//! Who of those that compute without end is next: by virtual time, so that each gets by its weight. Pure.
//!
//! A guest's virtual time is what it used divided by its weight; the one with the least is next. One that comes back after a
//! rest starts where the others are: what it did not use is not kept. Beside that a guest is owed what it requested, and each a
//! little of what there is: where others of the machine take the processor, [`RunQueue::take_owed`] says whose turn it is.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::ticker::TICK;

/// The weight of a guest that requested nothing.
const LEAST_WEIGHT: u64 = 2;
/// How much a guest may be behind its request before it is owed.
const OWED: Duration = Duration::from_millis(20);
/// How much it can be behind or before its request at most.
const MOST_OWED: Duration = Duration::from_millis(100);

/// For how long a task waits before it is owed a turn whatever its guest requested.
const PATIENCE: Duration = Duration::from_millis(20);
/// How many times as long as such turns take there are none after them.
const PAUSE: u32 = 4;

/// What a guest may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Whose it is.
    pub guest: u64,
    /// Thousandths of a core that it requested.
    pub request_millis: u32,
}

impl Share {
    /// As a cgroup's: 1,024 for a core.
    fn weight(self) -> u64 {
        (u64::from(self.request_millis) * 1024 / 1000).max(LEAST_WEIGHT)
    }
}

/// The tasks that are ready, by guest.
#[derive(Debug)]
pub(crate) struct RunQueue<T> {
    guests: HashMap<u64, Guest<T>>,
    /// The virtual time at which a guest begins.
    floor: u64,
    /// Until then nobody has a turn only for having waited.
    pause: Option<Instant>,
}

#[derive(Debug)]
struct Guest<T> {
    share: Share,
    virtual_time: u64,
    /// Each with when it was pushed.
    ready: VecDeque<(Instant, T)>,
    running: usize,
    /// Nanoseconds by which it is behind its request; less than nothing if it is before it.
    behind: i64,
    reckoned: Instant,
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self { guests: HashMap::new(), floor: 0, pause: None }
    }
}

impl<T> RunQueue<T> {
    /// A task of this guest is ready.
    pub(crate) fn push(&mut self, share: Share, task: T, now: Instant) {
        let guest = self.guests.entry(share.guest).or_insert_with(|| Guest {
            share,
            virtual_time: self.floor,
            ready: VecDeque::new(),
            running: 0,
            behind: 0,
            reckoned: now,
        });
        guest.ready.push_back((now, task));
    }

    /// The next task.
    pub(crate) fn take(&mut self) -> Option<(u64, T)> {
        let waiting = self.guests.values_mut().filter(|guest| !guest.ready.is_empty());
        let guest = waiting.min_by_key(|guest| (guest.virtual_time, guest.share.guest))?;
        self.floor = self.floor.max(guest.virtual_time);
        guest.take()
    }

    /// The next task of the guest that is furthest behind its request, if any is; else the one that has waited for too long.
    pub(crate) fn take_owed(&mut self, now: Instant) -> Option<(u64, T)> {
        let waiting = self.guests.values_mut().filter(|guest| !guest.ready.is_empty());
        let owed = waiting.filter_map(|guest| {
            guest.reckon(now);
            (guest.behind > nanoseconds(OWED)).then_some(guest)
        });
        if let Some(guest) = owed.max_by_key(|guest| (guest.behind, guest.share.guest)) {
            return guest.take();
        }
        if self.pause.is_some_and(|pause| now < pause) {
            return None;
        }
        let waiting = self.guests.values_mut().filter_map(|guest| Some((guest.ready.front()?.0, guest)));
        let (since, guest) = waiting.min_by_key(|(since, guest)| (*since, guest.share.guest))?;
        if now.saturating_duration_since(since) < PATIENCE {
            return None;
        }
        // An epoch is the least that a turn takes.
        self.pause = Some(now + TICK * (1 + PAUSE));
        guest.take()
    }

    /// A task of this guest that was taken has run for so long; it was pushed again before if it is ready still.
    pub(crate) fn charge(&mut self, guest: u64, used: Duration, now: Instant) {
        let Some(entry) = self.guests.get_mut(&guest) else { return };
        entry.running = entry.running.saturating_sub(1);
        if entry.running == 0 && entry.ready.is_empty() {
            self.guests.remove(&guest);
            return;
        }
        let used = nanoseconds(used);
        entry.virtual_time += used.unsigned_abs() * 1024 / entry.share.weight();
        entry.behind = entry.behind.saturating_sub(used);
        entry.reckon(now);
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.guests.values().all(|guest| guest.ready.is_empty())
    }
}

impl<T> Guest<T> {
    fn take(&mut self) -> Option<(u64, T)> {
        let (_, task) = self.ready.pop_front()?;
        self.running += 1;
        Some((self.share.guest, task))
    }

    fn reckon(&mut self, now: Instant) {
        let passed = nanoseconds(now.saturating_duration_since(self.reckoned));
        self.reckoned = now;
        let due = passed.saturating_mul(i64::from(self.share.request_millis)) / 1000;
        let most = nanoseconds(MOST_OWED);
        self.behind = self.behind.saturating_add(due).clamp(-most, most);
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Duration = Duration::from_millis(1);

    /// Lets guests that always have a task run for so many epochs on one processor; the epochs that each got.
    fn shares(requests: &[u32], epochs: usize) -> Vec<usize> {
        let (mut queue, now) = (RunQueue::default(), Instant::now());
        let mut got = vec![0; requests.len()];
        let share = |guest: u64| Share { guest, request_millis: requests[usize::try_from(guest).unwrap_or_default()] };
        for guest in 0..requests.len() as u64 {
            queue.push(share(guest), (), now);
        }
        for _ in 0..epochs {
            let (guest, ()) = queue.take().expect("all are ready");
            got[usize::try_from(guest).unwrap_or_default()] += 1;
            queue.push(share(guest), (), now);
            queue.charge(guest, EPOCH, now);
        }
        got
    }

    proptest! {
        #[test]
        fn each_gets_by_its_weight(requests in prop::collection::vec(prop_oneof![Just(0), 10..4_000u32], 1..6)) {
            let weights: Vec<u64> = requests.iter().map(|millis| (u64::from(*millis) * 1024 / 1000).max(2)).collect();
            let total: u64 = weights.iter().sum();
            let got = shares(&requests, 10_000);
            for (weight, got) in weights.iter().zip(got) {
                let due = 10_000.0 * (*weight as f64) / (total as f64);
                prop_assert!((got as f64 - due).abs() <= requests.len() as f64 + 1.0, "{got} of {due} for {weight}");
            }
        }
    }

    #[test]
    fn one_that_comes_back_waits_for_its_turn_and_takes_no_more_than_it() {
        let (mut queue, now) = (RunQueue::default(), Instant::now());
        let share = |guest| Share { guest, request_millis: 100 };
        queue.push(share(1), 'a', now);
        for _ in 0..1_000 {
            assert_eq!(queue.take(), Some((1, 'a')));
            queue.push(share(1), 'a', now);
            queue.charge(1, EPOCH, now);
        }
        queue.push(share(2), 'b', now);
        let mut turns = String::new();
        for _ in 0..10 {
            let (guest, task) = queue.take().expect("both are ready");
            turns.push(task);
            queue.push(share(guest), task, now);
            queue.charge(guest, EPOCH, now);
        }
        assert_eq!(turns.matches('b').count(), 5, "{turns}");
    }

    #[test]
    fn who_gets_less_than_requested_is_owed() {
        let (mut queue, start) = (RunQueue::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        queue.push(Share { guest: 1, request_millis: 500 }, 'a', start);
        queue.push(Share { guest: 2, request_millis: 0 }, 'b', start);
        assert_eq!(queue.take_owed(at(19)), None);
        // 25 ms were due.
        assert_eq!(queue.take_owed(at(50)), Some((1, 'a')));
        queue.push(Share { guest: 1, request_millis: 500 }, 'a', at(50));
        queue.charge(1, Duration::from_millis(10), at(50));
        // The other one requested nothing, and has waited.
        assert_eq!(queue.take_owed(at(51)), Some((2, 'b')));
        // After a long time it is owed no more than the most.
        for turn in 0..8 {
            assert!(queue.take_owed(at(10_000)).is_some(), "{turn}");
            queue.push(Share { guest: 1, request_millis: 500 }, 'a', at(10_000));
            queue.charge(1, Duration::from_millis(10), at(10_000));
        }
        assert_eq!(queue.take_owed(at(10_000)), None);
        assert!(!queue.is_empty());
    }

    #[test]
    fn whoever_waits_has_a_turn_now_and_then() {
        let (mut queue, start) = (RunQueue::default(), Instant::now());
        let share = |guest| Share { guest, request_millis: 0 };
        for guest in 0..4 {
            queue.push(share(guest), (), start);
        }
        // Nobody else takes from the queue for a second.
        let mut turns = [0u32; 4];
        for millis in 0..1_000 {
            let now = start + Duration::from_millis(millis);
            if let Some((guest, ())) = queue.take_owed(now) {
                turns[usize::try_from(guest).unwrap_or_default()] += 1;
                queue.push(share(guest), (), now + EPOCH);
                queue.charge(guest, EPOCH, now + EPOCH);
            }
        }
        let all: u32 = turns.iter().sum();
        assert!((180..=200).contains(&all), "a fifth of the time: {turns:?}");
        assert!(turns.iter().all(|turns| (45..=50).contains(turns)), "{turns:?}");
    }

    #[test]
    fn who_has_no_task_is_forgotten() {
        let (mut queue, now) = (RunQueue::default(), Instant::now());
        queue.push(Share { guest: 1, request_millis: 0 }, (), now);
        let (guest, ()) = queue.take().expect("one is ready");
        assert!(queue.is_empty() && queue.take().is_none());
        queue.charge(guest, EPOCH, now);
        assert!(queue.guests.is_empty());
    }
}
