//! The times for which ordinary pods wait because they were refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::door::Door;
use super::filter_reason::FilterReason;

/// The most pods whose wait is measured at once; it is a measure, and leaving some out does not change it much.
const MAX_MEASURED: usize = 20_000;

/// The wait of one pod that was bound in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodWait {
    /// The door at which the pod was refused first.
    pub door: Door,
    /// The reason of that refusal.
    pub reason: FilterReason,
    /// The time from that refusal to the binding.
    pub time: Duration,
}

/// The pods that were refused and are not bound yet.
#[derive(Debug, Default)]
pub(super) struct PodWaits {
    refused: HashMap<Arc<str>, (Door, FilterReason, Instant)>,
    ended: Vec<PodWait>,
}

impl PodWaits {
    /// Records a refusal; only the first one of a pod counts.
    pub(super) fn begin(&mut self, uid: &Arc<str>, door: Door, reason: FilterReason, now: Instant) {
        if self.refused.len() < MAX_MEASURED {
            self.refused.entry(uid.clone()).or_insert((door, reason, now));
        }
    }

    /// Returns the time since a pod was first refused at this door; `None` if it was first refused at another one, or never.
    pub(super) fn since_refused(&self, uid: &str, at: Door, now: Instant) -> Option<Duration> {
        let (door, _, since) = self.refused.get(uid)?;
        (*door == at).then(|| now.saturating_duration_since(*since))
    }

    /// Records that a pod was bound.
    pub(super) fn bound(&mut self, uid: &str, now: Instant) {
        if let Some((door, reason, since)) = self.refused.remove(uid) {
            self.ended.push(PodWait { door, reason, time: now.saturating_duration_since(since) });
        }
    }

    /// Forgets a pod that has ended or is gone.
    pub(super) fn forget(&mut self, uid: &str) {
        self.refused.remove(uid);
    }

    /// Forgets the pods for which `is_known` is false: a call may name one that does not exist.
    pub(super) fn retain(&mut self, is_known: impl Fn(&str) -> bool, unknown_for: Duration, now: Instant) {
        self.refused.retain(|uid, (_, _, since)| {
            is_known(uid) || now.saturating_duration_since(*since) < unknown_for
        });
    }

    /// Takes the waits that have ended since the last call.
    pub(super) fn take(&mut self) -> Vec<PodWait> {
        std::mem::take(&mut self.ended)
    }
}
