//! Which images go. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::eviction::threshold::Reading;

/// A module that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its digest.
    pub module: String,
    /// The bytes of its file.
    pub size_bytes: u64,
    /// When it came.
    pub since: Timestamp,
    /// When a pod was last seen with it; when it came if none was.
    pub last_used: Timestamp,
    /// Whether a pod of the node has it.
    pub is_used: bool,
}

/// How full the images' file system may get, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fullness {
    /// From here on images are removed.
    pub high: u8,
    /// Until it is as empty as this.
    pub low: u8,
}

/// The bytes that must be made free; 0 while there is room enough.
pub fn wanted_bytes(disk: Reading, fullness: Fullness) -> u64 {
    let available = disk.available.min(disk.capacity);
    let part = |percent: u8| u128::from(disk.capacity) * u128::from(100 - percent.min(100)) / 100;
    let used_percent = 100 - u128::from(available) * 100 / u128::from(disk.capacity.max(1));
    if disk.capacity == 0 || used_percent < u128::from(fullness.high) {
        return 0;
    }
    let wanted = part(fullness.low).saturating_sub(u128::from(available));
    u64::try_from(wanted).unwrap_or(u64::MAX)
}

/// Those that go so that `wanted_bytes` get free, or all that may go if they do not suffice: the one first whose last use is
/// longest ago. One that is used or came less than `least_age` ago stays.
pub fn victims(
    candidates: &[Candidate],
    wanted_bytes: u64,
    least_age: SignedDuration,
    now: Timestamp,
) -> Vec<&Candidate> {
    let may_go = |candidate: &&Candidate| !candidate.is_used && now.duration_since(candidate.since) >= least_age;
    let mut order: Vec<&Candidate> = candidates.iter().filter(may_go).collect();
    order.sort_by(|a, b| (a.last_used, a.since, &a.module).cmp(&(b.last_used, b.since, &b.module)));
    let mut freed = 0u64;
    let mut chosen = Vec::new();
    for candidate in order {
        if freed >= wanted_bytes {
            break;
        }
        freed = freed.saturating_add(candidate.size_bytes);
        chosen.push(candidate);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST_AGE: SignedDuration = SignedDuration::from_secs(120);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn room_is_made_down_to_the_low_mark_from_the_high_one_on() {
        let fullness = Fullness { high: 85, low: 80 };
        let wanted = |available: u64| wanted_bytes(Reading { available, capacity: 1_000 }, fullness);
        assert_eq!((wanted(1_000), wanted(160), wanted(150), wanted(0)), (0, 0, 50, 200));
        assert_eq!(wanted_bytes(Reading { available: 0, capacity: 0 }, fullness), 0);
        let large = Reading { available: 0, capacity: u64::MAX };
        assert_eq!(wanted_bytes(large, Fullness { high: 85, low: 0 }), u64::MAX);
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0u64..100, 0i64..1_000, 0i64..1_000, any::<bool>());
        proptest::collection::vec(one, 0..12).prop_map(|rows| {
            let candidate = |(number, (size_bytes, since, later, is_used)): (usize, (u64, i64, i64, bool))| Candidate {
                module: format!("m{number}"),
                size_bytes,
                since: at(since),
                last_used: at(since + later),
                is_used,
            };
            rows.into_iter().enumerate().map(candidate).collect()
        })
    }

    proptest! {
        #[test]
        fn just_enough_goes_and_the_longest_unused_first(all in candidates(), wanted in 0u64..400, now in 0i64..1_200) {
            let now = at(now);
            let chosen = victims(&all, wanted, LEAST_AGE, now);
            for one in &chosen {
                prop_assert!(!one.is_used && now.duration_since(one.since) >= LEAST_AGE, "{:?} must stay", one);
            }
            let bytes = |some: &[&Candidate]| some.iter().map(|one| one.size_bytes).sum::<u64>();
            if let Some((_, before)) = chosen.split_last() {
                prop_assert!(bytes(before) < wanted, "the last one went in vain");
            }
            let stays = |one: &&Candidate| !chosen.contains(one);
            let could: Vec<&Candidate> = all
                .iter()
                .filter(|one| !one.is_used && now.duration_since(one.since) >= LEAST_AGE)
                .filter(stays)
                .collect();
            prop_assert!(bytes(&chosen) >= wanted || could.is_empty(), "{:?} could have gone", could);
            for gone in &chosen {
                prop_assert!(could.iter().all(|one| gone.last_used <= one.last_used), "{:?} went too early", gone);
            }
        }
    }
}
