//! The pauses between two attempts to watch.

use std::time::{Duration, Instant};

use kube::runtime::utils::Backoff;

/// What is tried again: first at once, then with longer and longer pauses. Short ones, because while the apiserver is away no
/// room is kept, and each replica has nine watches at most.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(2);

/// Longer and longer pauses. kube resets its own ones only after two minutes without an error, and any at every attempt to
/// list, whether or not it succeeds: these start anew a while after the last one.
#[derive(Default)]
pub(super) struct WatchBackoff {
    last: Option<(Duration, Instant)>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let next = match self.last {
            Some((pause, at)) if now.saturating_duration_since(at) < *PAUSES.end() * 3 => {
                (pause * 2).min(*PAUSES.end())
            }
            _ => *PAUSES.start(),
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
