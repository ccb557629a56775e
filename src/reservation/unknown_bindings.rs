//! Refusals because the cache lacks the pod or the node of a binding: they wait for the events, and for a bounded time only.
//!
//! A scheduler can be ahead of the watch by milliseconds. Unlike the filter, the review of a binding is the last word: a pod that
//! is let through unseen may take the room of a daemon pod.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap};

/// The time for which the binding of one pod waits for the events: the scheduler tries it again after one second, and by then the
/// watch has brought both. A cache that is behind for longer is not fresh (`cache/freshness.rs`).
const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// The time after which a pod is forgotten, so that the two seconds do not begin anew with each attempt of a pod that never comes.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// The most pods of each kind; bindings of further ones are allowed. Anybody can send reviews with invented names.
const MAX_UNKNOWN: usize = 1_024;

/// The pods whose binding was refused because the cache lacks it, or its node, or because the two contradict each other, by the hash
/// of their UID or names, with the time of the first refusal.
#[derive(Debug, Default)]
pub(super) struct UnknownBindings {
    /// Pods that are cached, and so exist: invented names do not take their places.
    known: HashMap<u64, Instant>,
    unknown: HashMap<u64, Instant>,
    hasher: DefaultHashBuilder,
}

impl UnknownBindings {
    /// Returns true if the binding of this pod is refused now. The first call starts the clock of the pod.
    pub(super) fn refuses(&mut self, pod: &str, is_known: bool, now: Instant) -> bool {
        let key = self.hasher.hash_one(pod);
        let first_refused = if is_known { &mut self.known } else { &mut self.unknown };
        if let Some(since) = first_refused.get(&key) {
            return now.saturating_duration_since(*since) < UNKNOWN_TIMEOUT;
        }
        if first_refused.len() >= MAX_UNKNOWN {
            return false;
        }
        first_refused.insert(key, now);
        true
    }

    /// Forgets old refusals. Call it on each tick.
    pub(super) fn expire(&mut self, now: Instant) {
        for first_refused in [&mut self.known, &mut self.unknown] {
            first_refused.retain(|_, since| now.saturating_duration_since(*since) < FORGET_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_waits_two_seconds_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut unknown = UnknownBindings::default();
        assert_eq!(
            [0, 1, 2, 30].map(|second| unknown.refuses("a", false, at(second))),
            [true, true, false, false]
        );
        unknown.expire(at(30));
        assert!(!unknown.refuses("a", false, at(31)));
        unknown.expire(at(60));
        assert!(unknown.refuses("a", false, at(61)));
        let refused =
            (0..2 * MAX_UNKNOWN).filter(|pod| unknown.refuses(&pod.to_string(), false, at(61))).count();
        assert_eq!(refused, MAX_UNKNOWN - 1, "invented names do not fill the memory");
        assert!(unknown.refuses("exists", true, at(61)), "nor take the places of pods that exist");
    }
}
