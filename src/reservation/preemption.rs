//! The preemption verb: the candidate nodes of a `/scheduler/preempt` call that are dropped.
//!
//! The scheduler proposes nodes with the victims that it would pick there. A node is kept as it is or dropped, never changed: a
//! victim that the scheduler did not pick, or one of another node, would end its attempt (kubernetes v1.36.3
//! pkg/scheduler/extender.go `convertToVictims`).

use std::ops::DerefMut;
use std::time::Instant;

use enum_map::{Enum, EnumMap};
use strum::{IntoStaticStr, VariantNames};

use super::incoming_pod::{IncomingDemand, IncomingPod, PodClass};
use super::{Reservation, View};
use crate::api::extender_v1::preemption::PreemptionCandidate;
use crate::cache::Cache;
use crate::policy::ProtectDaemonPods;

/// The reason for which a candidate is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum PreemptionReason {
    /// The daemon pod's terminating predecessor will leave it enough room, so no pod need be evicted (kubernetes#102382).
    PredecessorLeaves,
    /// The preemptor would take the room of a missing daemon pod.
    Reserved,
    /// A daemon pod would be evicted (kubernetes#141227).
    DaemonPodVictim,
}

/// One preemption call of the scheduler, with the facts about the preemptor for all candidates.
#[derive(Debug)]
pub struct PreemptionCall<'c> {
    reservation: &'c mut Reservation,
    cache: &'c Cache,
    pod: IncomingPod,
    now: Instant,
}

impl Reservation {
    /// Begins a call for a pod that is about to preempt others.
    fn begin_preemption<'c>(
        &'c mut self,
        cache: &'c Cache,
        demand: &IncomingDemand<'_>,
        now: Instant,
    ) -> PreemptionCall<'c> {
        PreemptionCall { pod: IncomingPod::of(self, cache, demand), reservation: self, cache, now }
    }
}

impl PreemptionCall<'_> {
    /// Returns true if the pod with this UID is a verified daemon pod: its DaemonSet exists, with that UID, and selects it.
    fn is_daemon_pod(&self, uid: &str) -> bool {
        let daemon = self.cache.pod(uid).and_then(|pod| pod.daemon.as_ref());
        daemon.is_some_and(|daemon| daemon.daemon_set.is_some())
    }

    /// Returns true if a hold would still refuse the preemptor on the node once the victims have left; false for a node that the
    /// cache does not know.
    fn would_take_reserved<'v>(&mut self, node: &str, victims: impl Iterator<Item = &'v str>) -> bool {
        if self.pod.class == PodClass::Exempt {
            return false;
        }
        let Some(id) = self.cache.node_id(node) else { return false };
        self.reservation.refresh(self.cache, id, self.now);
        let remaining = self.pod.remaining_beside_holds(self.reservation, self.cache, id);
        let Some(mut remaining) = remaining else { return false };
        for victim in victims.filter_map(|uid| self.cache.pod(uid)).filter(|pod| pod.node == Some(id)) {
            remaining.free.add(&victim.requests);
        }
        remaining.lacks_room_for(&self.pod)
    }

    /// Returns true if the preemptor is a daemon pod that will fit on the node as soon as terminating pods of its own DaemonSet
    /// have left, so that no pod need be evicted (kubernetes#102382).
    fn predecessor_leaves_room(&self, node: &str) -> bool {
        let PodClass::Daemon(daemon_set) = self.pod.class else { return false };
        let Some((_, state)) = self.cache.node(node) else { return false };
        let mut free = state.allocatable.clone();
        free.subtract(&state.requested);
        let mut any = false;
        for pod in state.daemon_pods.iter().map(|pod| self.cache.pod_by_id(*pod)) {
            if pod.is_of(daemon_set) && pod.node.is_some() && pod.is_unfinished() && pod.is_terminating {
                free.add(&pod.requests);
                any = true;
            }
        }
        any && free.lacks(&self.pod.requests).is_none()
    }

    fn facts(&mut self, candidate: &PreemptionCandidate<'_>) -> CandidateFacts {
        let mut victims = candidate.victims.iter().map(|uid| &**uid);
        CandidateFacts {
            has_daemon_pod: victims.clone().any(|uid| self.is_daemon_pod(uid)),
            predecessor_leaves_room: self.predecessor_leaves_room(&candidate.node),
            takes_reserved: self.would_take_reserved(&candidate.node, &mut victims),
        }
    }
}

/// The facts about a candidate and the preemptor, once the victims have left.
#[derive(Debug, Clone, Copy)]
struct CandidateFacts {
    /// True if a daemon pod is among the victims.
    has_daemon_pod: bool,
    /// True if the preemptor has a terminating predecessor there that leaves it enough room.
    predecessor_leaves_room: bool,
    /// True if the preemptor would take the room of a missing daemon pod.
    takes_reserved: bool,
}

/// The candidates and victims of a call beyond the nodes and pods that the cache has; as for the nodes of a filter call.
const UNKNOWN_OBJECTS: usize = 1_000;
/// The victims on one candidate. A kubelet runs 110 pods by default, and few more than a thousand can be configured.
const MAX_VICTIMS: usize = 4_096;
/// The candidates and victims that are looked up before the lock is given to others: about a millisecond.
const MAX_WORK: usize = 2_048;
/// The work for a candidate, in looked-up victims: its node may have to be refreshed.
const CANDIDATE_WORK: usize = 32;

/// Returns for each of `candidates` the reason for which it is dropped; `None` for those that stay. `None` if the call is not
/// judged, because it names more candidates than there are nodes, or more victims than there are pods or than fit on a node, which
/// no scheduler does: all candidates stay.
///
/// `lock` locks the cache, which is given to others in between if there is much to judge.
pub fn judge_candidates<G: DerefMut<Target = View>>(
    mut lock: impl FnMut() -> G,
    protection: ProtectDaemonPods,
    demand: &IncomingDemand<'_>,
    candidates: &[PreemptionCandidate<'_>],
    now: Instant,
) -> Option<Vec<Option<PreemptionReason>>> {
    let victims = || candidates.iter().map(|candidate| candidate.victims.len());
    if victims().any(|victims| victims > MAX_VICTIMS) {
        return None;
    }
    let victims: usize = victims().sum();
    let mut facts = Vec::with_capacity(candidates.len());
    loop {
        let mut view = lock();
        let View { cache, reservation } = &mut *view;
        if candidates.len() > cache.node_capacity() + UNKNOWN_OBJECTS
            || victims > cache.pod_capacity() + UNKNOWN_OBJECTS
        {
            return None;
        }
        let mut call = reservation.begin_preemption(cache, demand, now);
        let mut work = 0;
        for candidate in &candidates[facts.len()..] {
            facts.push(call.facts(candidate));
            work += CANDIDATE_WORK + candidate.victims.len();
            if work >= MAX_WORK {
                break;
            }
        }
        let preemptor = call.pod.class;
        if facts.len() == candidates.len() {
            drop(view);
            return Some(decide(protection, preemptor, &facts));
        }
    }
}

fn decide(
    protection: ProtectDaemonPods,
    preemptor: PodClass,
    candidates: &[CandidateFacts],
) -> Vec<Option<PreemptionReason>> {
    let own_reason = |facts: &CandidateFacts| match preemptor {
        PodClass::Exempt => None,
        PodClass::Daemon(_) if facts.predecessor_leaves_room => Some(PreemptionReason::PredecessorLeaves),
        // Also without victims, for the filter call would refuse the node in the end.
        PodClass::Daemon(_) | PodClass::Ordinary => {
            facts.takes_reserved.then_some(PreemptionReason::Reserved)
        }
    };
    let mut reasons: Vec<_> = candidates.iter().map(own_reason).collect();
    let is_spared = match protection {
        _ if preemptor != PodClass::Ordinary => false,
        ProtectDaemonPods::Never => false,
        // Only if another candidate is left.
        ProtectDaemonPods::PreferOthers => {
            let mut pairs = reasons.iter().zip(candidates);
            pairs.any(|(reason, facts)| reason.is_none() && !facts.has_daemon_pod)
        }
        ProtectDaemonPods::Always => true,
    };
    for (reason, _) in
        reasons.iter_mut().zip(candidates).filter(|(_, facts)| is_spared && facts.has_daemon_pod)
    {
        reason.get_or_insert(PreemptionReason::DaemonPodVictim);
    }
    reasons
}

/// Counts the dropped nodes by reason.
pub fn count(verdicts: &[Option<PreemptionReason>]) -> EnumMap<PreemptionReason, usize> {
    let mut dropped = EnumMap::default();
    for reason in verdicts.iter().flatten() {
        dropped[*reason] += 1;
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the reasons. UIDs of daemon pods start with `d`; the letters `p` and `k` in a node's name stand for its facts.
    fn verdicts(
        protection: ProtectDaemonPods,
        preemptor: PodClass,
        candidates: &[(&'static str, &[&'static str])],
    ) -> Vec<Option<PreemptionReason>> {
        let facts = |(node, victims): &(&str, &[&str])| CandidateFacts {
            has_daemon_pod: victims.iter().any(|uid| uid.starts_with('d')),
            predecessor_leaves_room: node.contains('p'),
            takes_reserved: node.contains('k'),
        };
        decide(protection, preemptor, &candidates.iter().map(facts).collect::<Vec<_>>())
    }

    const DAEMON: Option<PreemptionReason> = Some(PreemptionReason::DaemonPodVictim);
    const KEPT: Option<PreemptionReason> = Some(PreemptionReason::Reserved);

    #[test]
    fn issue_141227_daemon_pods_are_spared_where_another_node_will_do() {
        use PodClass::Ordinary;
        use ProtectDaemonPods::{Always, Never, PreferOthers};
        let mixed: &[(_, &[_])] = &[("1", &["a", "d1"]), ("2", &["b"]), ("3", &["d2"])];
        assert_eq!(verdicts(PreferOthers, Ordinary, mixed), [DAEMON, None, DAEMON]);
        assert_eq!(verdicts(Always, Ordinary, mixed), [DAEMON, None, DAEMON]);
        assert_eq!(verdicts(Never, Ordinary, mixed), [None, None, None]);
        // No other candidate is left, so the list is not emptied.
        let daemons: &[(_, &[_])] = &[("1", &["a", "d1"]), ("3", &["d2"])];
        assert_eq!(verdicts(PreferOthers, Ordinary, daemons), [None, None]);
        assert_eq!(verdicts(Always, Ordinary, daemons), [DAEMON, DAEMON]);
        assert_eq!(verdicts(PreferOthers, Ordinary, &[]), []);
    }

    #[test]
    fn a_node_that_is_dropped_for_kept_room_is_no_other_node() {
        use ProtectDaemonPods::PreferOthers;
        let candidates: &[(_, &[_])] = &[("1", &["d1"]), ("k2", &["b"])];
        assert_eq!(verdicts(PreferOthers, PodClass::Ordinary, candidates), [None, KEPT]);
        let candidates: &[(_, &[_])] = &[("1", &["d1"]), ("k2", &["d2"]), ("3", &[])];
        assert_eq!(verdicts(PreferOthers, PodClass::Ordinary, candidates), [DAEMON, KEPT, None]);
    }

    #[test]
    fn dropped_nodes_are_counted_by_reason() {
        assert_eq!(count(&[KEPT, None]).into_array(), [0, 1, 0]);
    }

    #[test]
    fn issue_102382_a_daemon_pod_waits_for_its_predecessor_only() {
        let candidates: &[(_, &[_])] = &[("kp1", &["d1", "a"]), ("k2", &["d2"]), ("3", &["d3"])];
        let always = ProtectDaemonPods::Always;
        let waits = [Some(PreemptionReason::PredecessorLeaves), KEPT, None];
        assert_eq!(verdicts(always, PodClass::Daemon(0), candidates), waits);
        assert_eq!(verdicts(always, PodClass::Exempt, candidates), [None; 3]);
    }
}
