//! Keeps an error that lasts from being logged again and again.

use std::time::{Duration, Instant};

/// The last logged error of a watch.
#[derive(Default)]
pub(crate) struct LogThrottle {
    last: Option<(u16, Instant)>,
}

impl LogThrottle {
    /// Returns true if the caller must log an error with this HTTP status: it is another than the last one, or that was logged ten
    /// minutes ago or earlier.
    pub(crate) fn is_new(&mut self, code: u16) -> bool {
        let now = Instant::now();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < Duration::from_secs(600);
        if self.last.is_some_and(|(last, at)| last == code && is_recent(at)) {
            return false;
        }
        self.last = Some((code, now));
        true
    }
}
