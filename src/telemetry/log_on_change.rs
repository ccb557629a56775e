//! Keeps a trouble that lasts from being logged again and again.

use std::time::{Duration, Instant};

/// What has been told of a watch's troubles: each kind of them once in a while.
#[derive(Default)]
pub(crate) struct LogThrottle {
    last: Option<(u16, Instant)>,
}

impl LogThrottle {
    /// Returns true for a trouble of another kind than the last one, and for the same one ten minutes after it was told.
    pub(crate) fn is_new(&mut self, code: u16) -> bool {
        let now = Instant::now();
        let lately = |at: Instant| now.saturating_duration_since(at) < Duration::from_secs(600);
        if self.last.is_some_and(|(last, at)| last == code && lately(at)) {
            return false;
        }
        self.last = Some((code, now));
        true
    }
}
