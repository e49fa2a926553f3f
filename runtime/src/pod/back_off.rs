//! How long to wait before the next attempt.

use jiff::{SignedDuration, Timestamp};

/// The first pause.
const FIRST_SECONDS: i64 = 10;
/// The longest pause.
const LONGEST_SECONDS: i64 = 300;
/// A container that ran this long starts with a clean record.
pub const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// The pause before a container's next start after `crashes` ends in a row: the first restart is at once, then 10 s
/// doubling to 300 s (Kubernetes, "Pod Lifecycle", restart policy).
pub fn restart_delay(crashes: u32) -> SignedDuration {
    if crashes <= 1 { SignedDuration::ZERO } else { doubled(crashes - 2) }
}

/// The pause before the next pull or mount after `failures` in a row.
pub fn retry_delay(failures: u32) -> SignedDuration {
    doubled(failures.saturating_sub(1))
}

fn doubled(times: u32) -> SignedDuration {
    let seconds = FIRST_SECONDS.checked_shl(times.min(16)).unwrap_or(LONGEST_SECONDS);
    SignedDuration::from_secs(seconds.min(LONGEST_SECONDS))
}

/// `at` plus `delay`, held at the end of time.
pub fn after(at: Timestamp, delay: SignedDuration) -> Timestamp {
    at.saturating_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_ten_seconds_doubling_to_five_minutes() {
        let seconds: Vec<i64> = (0..9).map(|n| restart_delay(n).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(restart_delay(u32::MAX).as_secs(), 300);
        assert_eq!(retry_delay(1).as_secs(), 10);
    }
}
