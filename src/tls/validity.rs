//! The time, and the time that a certificate is good for. All in Unix seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// In seconds.
pub const DAY: i64 = 24 * 60 * 60;
/// In seconds. A CA that starts further in the future means that one of the two clocks is wrong, its maker's or ours: clients would
/// refuse it, perhaps for years. A CA that starts sooner stays in use: clients accept it within a day.
const MAX_CLOCK_AHEAD: i64 = DAY;

/// The time that a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    pub(super) fn is_over(self, now: i64) -> bool {
        now >= self.not_after
    }

    /// Returns true if a CA can be signed with.
    pub(super) fn is_usable(self, now: i64) -> bool {
        !self.is_over(now) && self.not_before <= now + MAX_CLOCK_AHEAD
    }

    /// Returns the seconds that are left, negative once the time is up.
    pub(super) fn left(self, now: i64) -> i64 {
        self.not_after - now
    }
}

/// Returns a time in Unix seconds. A time before 1970 is that of a clock that was not set: nothing has expired then.
pub(super) fn unix_time(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// Returns Unix seconds as a time, no earlier than 1970.
pub(super) fn system_time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}

/// Returns the time by this node's clock, in Unix seconds.
pub(super) fn local_time() -> i64 {
    unix_time(SystemTime::now())
}
