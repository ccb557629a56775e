//! Judging: one replica of several reviews bindings and nominates pods, and knows which bindings nobody reviewed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Reservation;
use super::pod_wait::PodWait;
use crate::cache::{Cache, PodId};
use crate::policy::ReservationMode;

/// The time after which a pod that was let through without being assumed is forgotten. A binding takes milliseconds.
const UNASSUMED_TTL: Duration = Duration::from_secs(5);
/// The most of these pods; further ones count as unjudged when they are seen bound.
const MAX_UNASSUMED: usize = 8_192;

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
        let was = std::mem::replace(&mut self.judging, judging);
        if was == judging {
            return;
        }
        if is_judging {
            self.adopt_nominations(cache, now);
        } else {
            self.nominations.forget_all();
            if was == Judging::Elected {
                self.judged_until = Some(now);
            }
        }
    }

    /// Returns true if this process is the elected judge, which is asked about every binding.
    pub(super) fn is_elected(&self) -> bool {
        self.judging == Judging::Elected
    }

    /// Records that a pod was let through to a node where it cannot count.
    pub(super) fn note_allowed(&mut self, uid: Arc<str>, now: Instant) {
        if self.allowed_unassumed.len() < MAX_UNASSUMED {
            self.allowed_unassumed.insert(uid, now);
        }
    }

    /// Forgets pods that were let through and not bound. Call it on each tick.
    pub(super) fn forget_allowed(&mut self, now: Instant) {
        self.allowed_unassumed.retain(|_, at| now.saturating_duration_since(*at) < UNASSUMED_TTL);
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
        let is_judged = pod.node.is_some_and(|node| self.assumed.is_assumed_on(&pod.uid, node))
            || self.allowed_unassumed.remove(&pod.uid).is_some();
        if is_reviewed && !is_judged && !self.is_exempt_pod(cache, pod) {
            self.bound_unjudged += 1;
        }
    }
}
