//! Which nodes a preemption may empty, as `/scheduler/preempt` answers.
//!
//! The scheduler proposes nodes with the victims that it would pick there. A node is left as it is or dropped, never changed:
//! a victim that the scheduler did not pick, or one of another node, would end its attempt (kubernetes v1.36.3 pkg/scheduler/extender.go `convertToVictims`).

pub mod call;

use crate::api::extender_v1::preemption::PreemptionCandidate;
use crate::policy::ProtectDaemonPods;

/// Who wants room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemptor {
    /// A pod that the room of daemon pods is kept from.
    Ordinary,
    /// A genuine daemon pod.
    Daemon,
    /// A system-critical pod, one that is to be left alone, or the warden's own: it takes what the scheduler gives it.
    Exempt,
}

/// Why a node is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PreemptionReason {
    /// The daemon pod's terminating predecessor will leave it enough room: nobody need go (kubernetes#102382).
    PredecessorLeaves,
    /// The preemptor would end up in room that is kept for a missing daemon pod.
    Reserved,
    /// A daemon pod would have to go (kubernetes#141227).
    DaemonPodVictim,
}

impl PreemptionReason {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; 3] = [Self::PredecessorLeaves, Self::Reserved, Self::DaemonPodVictim];

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its value of the metrics' label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::PredecessorLeaves => "predecessor_leaves",
            Self::Reserved => "reserved",
            Self::DaemonPodVictim => "daemon_pod_victim",
        }
    }
}

/// What must be known of the cluster.
pub trait Facts {
    /// Who wants room.
    fn preemptor(&mut self) -> Preemptor;
    /// Whether the pod with this UID is a genuine daemon pod: its DaemonSet exists, with that UID, and selects it.
    fn is_daemon_pod(&mut self, uid: &str) -> bool;
    /// Whether the preemptor, once the victims are gone, would take room that is kept on the node for another.
    fn ends_in_kept_room(&mut self, candidate: &PreemptionCandidate<'_>) -> bool;
    /// Whether the preemptor, a daemon pod, has a terminating predecessor on the node that will leave it enough room.
    fn predecessor_leaves_room(&mut self, candidate: &PreemptionCandidate<'_>) -> bool;
}

/// What is known without a cluster: nothing that would drop a node.
#[derive(Debug, Clone, Copy)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn preemptor(&mut self) -> Preemptor {
        Preemptor::Exempt
    }

    fn is_daemon_pod(&mut self, _: &str) -> bool {
        false
    }

    fn ends_in_kept_room(&mut self, _: &PreemptionCandidate<'_>) -> bool {
        false
    }

    fn predecessor_leaves_room(&mut self, _: &PreemptionCandidate<'_>) -> bool {
        false
    }
}

/// Why each of `candidates` is dropped; `None` for those that stay.
pub fn judge(
    protection: ProtectDaemonPods,
    facts: &mut impl Facts,
    candidates: &[PreemptionCandidate<'_>],
) -> Vec<Option<PreemptionReason>> {
    let preemptor = facts.preemptor();
    let mut verdicts: Vec<Option<PreemptionReason>> = candidates
        .iter()
        .map(|candidate| match preemptor {
            Preemptor::Exempt => None,
            Preemptor::Daemon if facts.predecessor_leaves_room(candidate) => {
                Some(PreemptionReason::PredecessorLeaves)
            }
            // Also without victims: filter would refuse the node in the end.
            _ => facts.ends_in_kept_room(candidate).then_some(PreemptionReason::Reserved),
        })
        .collect();
    if preemptor != Preemptor::Ordinary || protection == ProtectDaemonPods::Never {
        return verdicts;
    }
    let has_daemon_pod: Vec<bool> = candidates
        .iter()
        .map(|candidate| candidate.victims.iter().any(|uid| facts.is_daemon_pod(uid)))
        .collect();
    let another_will_do =
        verdicts.iter().zip(&has_daemon_pod).any(|(verdict, has)| verdict.is_none() && !has);
    if another_will_do || protection == ProtectDaemonPods::Always {
        for (verdict, _) in verdicts.iter_mut().zip(has_daemon_pod).filter(|(_, has)| *has) {
            verdict.get_or_insert(PreemptionReason::DaemonPodVictim);
        }
    }
    verdicts
}

/// Counts the dropped nodes by [`PreemptionReason::index`].
pub fn count(verdicts: &[Option<PreemptionReason>]) -> [usize; PreemptionReason::ALL.len()] {
    let mut dropped = [0; PreemptionReason::ALL.len()];
    for reason in verdicts.iter().flatten() {
        dropped[reason.index()] += 1;
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Daemon pods are those whose UID starts with `d`; nodes say by a letter what is true of them.
    struct Table(Preemptor);

    impl Facts for Table {
        fn preemptor(&mut self) -> Preemptor {
            self.0
        }

        fn is_daemon_pod(&mut self, uid: &str) -> bool {
            uid.starts_with('d')
        }

        fn ends_in_kept_room(&mut self, candidate: &PreemptionCandidate<'_>) -> bool {
            candidate.node.contains('k')
        }

        fn predecessor_leaves_room(&mut self, candidate: &PreemptionCandidate<'_>) -> bool {
            candidate.node.contains('p')
        }
    }

    fn verdicts(
        protection: ProtectDaemonPods,
        preemptor: Preemptor,
        candidates: &[(&'static str, &[&'static str])],
    ) -> Vec<Option<PreemptionReason>> {
        let candidate = |(node, victims): &(&'static str, &[&'static str])| PreemptionCandidate {
            node: (*node).into(),
            victims: victims.iter().map(|uid| (*uid).into()).collect(),
        };
        judge(protection, &mut Table(preemptor), &candidates.iter().map(candidate).collect::<Vec<_>>())
    }

    const DAEMON: Option<PreemptionReason> = Some(PreemptionReason::DaemonPodVictim);
    const KEPT: Option<PreemptionReason> = Some(PreemptionReason::Reserved);

    #[test]
    fn issue_141227_daemon_pods_are_spared_where_another_node_will_do() {
        use Preemptor::Ordinary;
        use ProtectDaemonPods::{Always, Never, PreferOthers};
        let mixed: &[(_, &[_])] = &[("1", &["a", "d1"]), ("2", &["b"]), ("3", &["d2"])];
        assert_eq!(verdicts(PreferOthers, Ordinary, mixed), [DAEMON, None, DAEMON]);
        assert_eq!(verdicts(Always, Ordinary, mixed), [DAEMON, None, DAEMON]);
        assert_eq!(verdicts(Never, Ordinary, mixed), [None, None, None]);
        // Nothing else will do: the list is not emptied.
        let daemons: &[(_, &[_])] = &[("1", &["a", "d1"]), ("3", &["d2"])];
        assert_eq!(verdicts(PreferOthers, Ordinary, daemons), [None, None]);
        assert_eq!(verdicts(Always, Ordinary, daemons), [DAEMON, DAEMON]);
        assert_eq!(verdicts(PreferOthers, Ordinary, &[]), []);
    }

    #[test]
    fn a_node_that_is_dropped_for_kept_room_is_no_other_node() {
        use ProtectDaemonPods::PreferOthers;
        let candidates: &[(_, &[_])] = &[("1", &["d1"]), ("k2", &["b"])];
        assert_eq!(verdicts(PreferOthers, Preemptor::Ordinary, candidates), [None, KEPT]);
        let candidates: &[(_, &[_])] = &[("1", &["d1"]), ("k2", &["d2"]), ("3", &[])];
        assert_eq!(verdicts(PreferOthers, Preemptor::Ordinary, candidates), [DAEMON, KEPT, None]);
    }

    #[test]
    fn dropped_nodes_are_counted_by_reason() {
        assert_eq!(count(&[KEPT, None]), [0, 1, 0]);
    }

    #[test]
    fn issue_102382_a_daemon_pod_waits_for_its_predecessor_only() {
        let candidates: &[(_, &[_])] = &[("kp1", &["d1", "a"]), ("k2", &["d2"]), ("3", &["d3"])];
        let always = ProtectDaemonPods::Always;
        let waits = [Some(PreemptionReason::PredecessorLeaves), KEPT, None];
        assert_eq!(verdicts(always, Preemptor::Daemon, candidates), waits);
        assert_eq!(verdicts(always, Preemptor::Exempt, candidates), [None; 3]);
    }
}
