//! What this crate allows itself: each with its unit, in one place.

use std::time::Duration;

/// How long a request that is not a watch may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the head of a watch's response may take.
pub const WATCH_OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long dialling a server may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request that certainly did nothing is sent again.
pub const RESENDS: usize = 3;
/// The first pause before it is.
pub const RESEND_PAUSE: Duration = Duration::from_millis(50);
/// Objects a page of a list. All of a page are in memory at once, a pod of 3 KB in JSON with ten times that.
pub const PAGE_OBJECTS: usize = 100;
/// How long a watch lasts before it is opened again where it stopped.
pub const WATCH_SECONDS: u64 = 290;
/// A watch that says nothing for this long beyond its own end is given up.
pub const WATCH_SILENCE: Duration = Duration::from_secs(WATCH_SECONDS + 30);
/// The longest event of a watch.
pub const FRAME_BYTES: usize = 8 << 20;
/// The longest response body.
pub const BODY_BYTES: usize = 256 << 20;
/// The first and the longest pause between attempts of a cache to reach the API.
pub const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How many updates of a cache a subscriber may fall behind before it has to look at everything again.
pub const UPDATES_BEHIND: usize = 4096;
/// How many different events a recorder counts together.
pub const EVENTS_COUNTED: usize = 1024;
/// How many events may wait to be written; more are dropped.
pub const EVENTS_WAITING: usize = 256;
