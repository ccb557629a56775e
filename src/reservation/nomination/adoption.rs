//! The nominations that another replica, or an earlier process, has written: the one that judges cares for them from then on.
//!
//! The apiserver records who wrote `status.nominatedNodeName` last, so that they are told from those of the scheduler.

use std::time::Instant;

use super::{NominationRecord, NominationState};
use crate::cache::{Cache, PodId};
use crate::reservation::Reservation;
use crate::reservation::judging::Judging;

impl Reservation {
    /// Takes over all nominations of the warden. Call it when this process begins to judge.
    pub(in crate::reservation) fn adopt_nominations(&mut self, cache: &Cache, now: Instant) {
        for (_, node) in cache.nodes() {
            for pod in &node.nominated {
                self.adopt_nomination(cache, *pod, now);
            }
        }
    }

    /// Takes over the nomination of a pod, if the warden has written it and this process has no record of it.
    pub(in crate::reservation) fn adopt_nomination(&mut self, cache: &Cache, id: PodId, now: Instant) {
        if self.judging == Judging::Standby || !self.policy.reservation.nominates() {
            return;
        }
        let Some(pod) = cache.pod_if_known(id) else { return };
        let is_ours = pod.daemon.as_ref().is_some_and(|daemon| daemon.is_nominated_by_warden);
        let (Some(node), Some(over)) = (pod.nominated.filter(|_| is_ours), pod.failed_version()) else {
            return;
        };
        self.nominations.records.entry(pod.uid.clone()).or_insert_with(|| NominationRecord {
            node,
            state: NominationState::Set { over: over.into() },
            not_before: now,
        });
    }
}
