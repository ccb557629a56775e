//! Judging: one replica of several reviews bindings and nominates pods, and knows which bindings nobody reviewed.

use std::time::Instant;

use super::Reservation;
use super::pod_wait::PodWait;
use crate::cache::{Cache, PodId};
use crate::policy::ReservationMode;

/// The part of this process in the judging of bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Judging {
    /// There is no election: every process judges what it is asked, and nominates.
    #[default]
    Unelected,
    /// This process alone judges bindings and nominates pods, so that it knows of each binding.
    Elected,
    /// Another replica judges.
    Standby,
}

impl Reservation {
    /// Records that this process is the elected judge from now on, or that another replica is. The judge alone nominates pods.
    pub fn set_judging(&mut self, cache: &Cache, is_judging: bool, now: Instant) {
        let judging = if is_judging { Judging::Elected } else { Judging::Standby };
        if std::mem::replace(&mut self.judging, judging) == judging {
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

    /// Takes the number of pods that were bound since the last call though no call allowed it, while this process is the elected
    /// judge.
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
        let is_reviewed =
            self.judging == Judging::Elected && self.policy.reservation.mode != ReservationMode::Off;
        if is_reviewed && !self.assumed.contains(&pod.uid) && !self.is_exempt_pod(cache, pod) {
            self.bound_unjudged += 1;
        }
    }
}
