//! The time that a certificate is good for.

/// Seconds.
pub const DAY: i64 = 24 * 60 * 60;
/// A CA that is ahead by more was made by a clock that was wrong, or is judged by one that is: nobody takes it for good, perhaps for
/// years. One that is ahead by less is waited for.
const AHEAD: i64 = DAY;

/// From when to when, in Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// Returns true once the time is up.
    pub(crate) fn is_over(self, now: i64) -> bool {
        now >= self.not_after
    }

    /// Whether a CA can be signed with.
    pub(crate) fn is_of_use(self, now: i64) -> bool {
        !self.is_over(now) && self.not_before <= now + AHEAD
    }

    /// Returns the seconds that are left, negative once the time is up.
    pub(crate) fn left(self, now: i64) -> i64 {
        self.not_after - now
    }
}
