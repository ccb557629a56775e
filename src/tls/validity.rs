//! The time, and the period in which a certificate is valid. All times are in Unix seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day, in seconds.
pub const DAY: i64 = 24 * 60 * 60;
/// The most seconds that the start of a usable CA may lie in the future. A later start means that a clock is wrong, that of the
/// CA's maker or ours: clients would refuse the CA, perhaps for years. A CA that starts sooner stays in use, because clients accept
/// it within a day.
const MAX_CLOCK_AHEAD: i64 = DAY;

/// The period in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second of the period.
    pub not_before: i64,
    /// The last second of the period.
    pub not_after: i64,
}

impl Validity {
    pub(super) fn is_over(self, now: i64) -> bool {
        now >= self.not_after
    }

    /// Returns true if a CA of this validity may sign at `now`: it has not expired, and starts at most [`MAX_CLOCK_AHEAD`] later.
    pub(super) fn is_usable(self, now: i64) -> bool {
        !self.is_over(now) && self.not_before <= now + MAX_CLOCK_AHEAD
    }

    /// Returns the seconds from `now` to the end; negative after the end.
    pub(super) fn left(self, now: i64) -> i64 {
        self.not_after - now
    }
}

/// Returns a time in Unix seconds; 0 for a time before 1970, which is that of a clock that was not set: nothing has expired then.
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
