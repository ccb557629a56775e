//! The pauses between two attempts to watch.

use std::time::{Duration, Instant};

use kube::runtime::utils::Backoff;

/// The first and the longest pause. Both are short: no room is reserved while a watch fails, and a replica has few watches.
const BACKOFF: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(2);

/// Pauses that double up to the longest, and start anew after three times the longest without an error.
///
/// kube's own start anew only after two minutes without an error, and every [`Backoff`] is reset at every attempt to list, also
/// a failed one; so [`Backoff::reset`] does nothing here.
#[derive(Default)]
pub(super) struct WatchBackoff {
    last: Option<(Duration, Instant)>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let next = match self.last {
            Some((pause, at)) if now.saturating_duration_since(at) < *BACKOFF.end() * 3 => {
                (pause * 2).min(*BACKOFF.end())
            }
            _ => *BACKOFF.start(),
        };
        self.last = Some((next, now));
        Some(next)
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses: Vec<u128> = WatchBackoff::default().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 2000, 2000, 2000]);
    }
}
