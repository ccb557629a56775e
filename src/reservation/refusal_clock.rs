//! How long a hold or a gate has been in somebody's way.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Adds up the time in which something is refused.
///
/// It runs from a refusal on for as long as the pod that was refused last is still waiting: time in which nobody waits does
/// not count. A refused pod is tried again at every event of the cluster, so a single refused_pod is enough.
#[derive(Debug, Clone, Default)]
pub struct RefusalClock {
    refused_pod: Option<RefusedPod>,
    spent: Duration,
}

#[derive(Debug, Clone)]
struct RefusedPod {
    uid: Arc<str>,
    refused_at: Instant,
    counted_until: Instant,
}

/// A pod may be offered to us before our own watch has told us of it.
const UNKNOWN_POD_GRACE: Duration = Duration::from_secs(5);

impl RefusalClock {
    /// A pod was refused.
    pub fn record_refusal(&mut self, uid: &Arc<str>, now: Instant) {
        self.count(now);
        self.refused_pod = Some(RefusedPod { uid: uid.clone(), refused_at: now, counted_until: now });
    }

    /// Counts the time until `now` and stops when nobody waits any more. `is_waiting` says of a pod whether it exists and is
    /// not bound; `None` when it is not known.
    pub fn tick(&mut self, now: Instant, is_waiting: impl Fn(&str) -> Option<bool>) {
        let Some(refused_pod) = &self.refused_pod else { return };
        let waits = match is_waiting(&refused_pod.uid) {
            Some(waits) => waits,
            None => now.saturating_duration_since(refused_pod.refused_at) < UNKNOWN_POD_GRACE,
        };
        self.count(now);
        if !waits {
            self.refused_pod = None;
        }
    }

    /// What it has added up to.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Whether somebody waits.
    pub fn is_running(&self) -> bool {
        self.refused_pod.is_some()
    }

    /// What is refused from here on is refused for another reason: counts the time until `now` and gives the refused_pod away,
    /// for the clock of that reason. What was spent stays spent, so that a reason that comes and goes is not waited for anew.
    pub fn continue_as(&mut self, to: &mut Self, now: Instant) {
        self.count(now);
        to.refused_pod = self.refused_pod.take();
    }

    /// Nothing is refused any more: stops.
    pub fn stop(&mut self, now: Instant) {
        self.count(now);
        self.refused_pod = None;
    }

    /// Forgets what was spent; whoever waits, waits on.
    pub fn reset_spent(&mut self, now: Instant) {
        self.count(now);
        self.spent = Duration::ZERO;
    }

    fn count(&mut self, now: Instant) {
        if let Some(refused_pod) = &mut self.refused_pod {
            self.spent += now.saturating_duration_since(refused_pod.counted_until);
            refused_pod.counted_until = now.max(refused_pod.counted_until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_somebody_waits_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pod: Arc<str> = "p".into();
        let mut clock = RefusalClock::default();
        clock.tick(at(100), |_| Some(true));
        assert_eq!(clock.spent(), Duration::ZERO);
        clock.record_refusal(&pod, at(100));
        clock.tick(at(103), |_| Some(true));
        clock.record_refusal(&pod, at(104));
        clock.tick(at(105), |_| Some(false));
        clock.tick(at(200), |_| Some(true));
        assert_eq!((clock.spent(), clock.is_running()), (Duration::from_secs(5), false));
        clock.record_refusal(&pod, at(300));
        clock.tick(at(302), |_| None);
        assert!(clock.is_running());
        clock.tick(at(306), |_| None);
        assert_eq!((clock.spent(), clock.is_running()), (Duration::from_secs(11), false));
    }
}
