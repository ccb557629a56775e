//! The time for which a hold or a gate has kept pods waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A clock that runs while a refused pod waits.
///
/// It runs from a refusal until the pod that was refused last does not wait any more. The scheduler tries a refused pod again at
/// every event, so one pod is enough.
#[derive(Debug, Clone, Default)]
pub struct RefusalClock {
    /// Boxed, because most clocks never run and a cluster has many.
    refused_pod: Option<Box<RefusedPod>>,
    spent: Duration,
}

#[derive(Debug, Clone)]
struct RefusedPod {
    uid: Arc<str>,
    refused_at: Instant,
    counted_until: Instant,
}

/// The time for which a pod that the watch has not brought yet counts as waiting.
const UNKNOWN_POD_GRACE: Duration = Duration::from_secs(5);

impl RefusalClock {
    /// Records a refusal, which starts the clock.
    pub fn record_refusal(&mut self, uid: &Arc<str>, now: Instant) {
        self.count(now);
        let refused_pod = RefusedPod { uid: uid.clone(), refused_at: now, counted_until: now };
        match &mut self.refused_pod {
            Some(own) => **own = refused_pod,
            None => self.refused_pod = Some(Box::new(refused_pod)),
        }
    }

    /// Counts the time until `now`, and stops if the pod does not wait any more. `is_waiting` returns true for the UID of a pod
    /// that exists and is not bound, and `None` for a pod that is not cached, which counts as waiting for five seconds from its
    /// refusal.
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

    /// Returns the time counted so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Takes over the time that another replica has counted. It includes what this one had counted when that one took over.
    pub fn restore_spent(&mut self, spent: Duration) {
        self.spent = self.spent.max(spent);
    }

    /// Returns true while a refused pod waits.
    pub fn is_running(&self) -> bool {
        self.refused_pod.is_some()
    }

    /// Stops this clock at `now` and lets `to` run on from there with the same pod. Each clock keeps the time that it has counted,
    /// so that a pod that fits and does not fit in turn never gets the time again.
    pub fn continue_as(&mut self, to: &mut Self, now: Instant) {
        self.count(now);
        to.refused_pod = self.refused_pod.take();
    }

    /// Counts the time until `now`, and stops.
    pub fn stop(&mut self, now: Instant) {
        self.count(now);
        self.refused_pod = None;
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
