//! Judging: one replica of several reviews bindings and nominates pods, and knows which bindings nobody reviewed.

use std::time::Instant;

use super::Reservation;
use super::pod_wait::PodWait;
use crate::cache::{Cache, PodId};
use crate::policy::ReservationMode;

impl Reservation {
    /// Records that this process judges from now on, or that another replica does. The judge alone nominates pods.
    pub fn set_judging(&mut self, cache: &Cache, is_judging: bool, now: Instant) {
        if std::mem::replace(&mut self.is_judging, is_judging) == is_judging {
            return;
        }
        if is_judging {
            self.adopt_nominations(cache, now);
        } else {
            self.nominations.forget_all();
        }
    }

    /// The number of pods for which a binding was allowed and has not been seen.
    pub fn bind_assumed_len(&self) -> usize {
        self.assumed.about_to_be_bound()
    }

    /// Takes the number of pods that were bound since the last call though no call allowed it, while this process judges.
    pub fn take_unjudged(&mut self) -> u64 {
        std::mem::take(&mut self.bound_unjudged)
    }

    /// Takes the waits of refused pods that have ended since the last call.
    pub fn take_waits(&mut self) -> Vec<PodWait> {
        self.waits.take()
    }

    /// Handles that a pod was bound.
    pub(super) fn note_bound(&mut self, cache: &Cache, id: PodId, now: Instant) {
        let Some(pod) = cache.pod_if_known(id) else { return };
        self.waits.bound(&pod.uid, now);
        let is_reviewed = self.is_judging && self.policy.reservation.mode != ReservationMode::Off;
        if is_reviewed && !self.assumed.contains(&pod.uid) && !self.is_exempt_pod(cache, pod) {
            self.bound_unjudged += 1;
        }
    }
}
