//! What only the cache can tell of a preemption: which victims are daemon pods, whether the preemptor would end up in kept room,
//! and whether a daemon pod need only wait for its own predecessor.

use std::time::Instant;

use crate::api::extender_v1::preemption::PreemptionCandidate;
use crate::api::pod::Pod;
use crate::cache::Cache;
use crate::reservation::filter::{IncomingPod, PodClass};
use crate::reservation::preemption;
use crate::reservation::preemption::Facts;

/// The preemptor of one call, taken up once for all candidates.
#[derive(Debug)]
pub struct Preemptor<'c> {
    cluster: &'c mut Cache,
    asking: IncomingPod,
    now: Instant,
}

impl Cache {
    /// Takes up a pod that is about to preempt others.
    pub fn preemptor(&mut self, pod: &Pod, now: Instant) -> Preemptor<'_> {
        let asking = IncomingPod::of(self, pod);
        Preemptor { cluster: self, asking, now }
    }
}

impl Preemptor<'_> {
    /// Whether it is a pod of a real DaemonSet.
    pub fn is_daemon_pod(&self) -> bool {
        matches!(self.asking.role, PodClass::Daemon(_))
    }

    /// Whether the pod with this UID is one of a real DaemonSet.
    pub fn is_daemon_victim(&self, uid: &str) -> bool {
        let daemon = self.cluster.pod(uid).and_then(|pod| pod.daemon.as_ref());
        daemon.is_some_and(|daemon| daemon.daemon_set.is_some())
    }

    /// Whether it would still be refused on `node`, for room that is kept there, once the victims have left.
    pub fn would_take_kept_room<'v>(&mut self, node: &str, victims: impl Iterator<Item = &'v str>) -> bool {
        if self.asking.role == PodClass::Exempt {
            return false;
        }
        let Some(id) = self.cluster.node_id(node) else { return false };
        self.cluster.refresh(id, self.now);
        let left = self.asking.left_beside_holds(self.cluster, id, self.cluster.node_by_id(id));
        let Some(mut left) = left else { return false };
        for victim in victims.filter_map(|uid| self.cluster.pod(uid)).filter(|pod| pod.node == Some(id)) {
            left.free.add(&victim.requests);
        }
        left.is_too_little_for(&self.asking)
    }

    /// Whether it is a daemon pod for `node` that will fit there as soon as pods of its own DaemonSet that are terminating have
    /// gone: then nobody has to be evicted for it (kubernetes#102382).
    pub fn predecessor_makes_room(&self, node: &str) -> bool {
        let PodClass::Daemon(daemon_set) = self.asking.role else { return false };
        let Some((_, state)) = self.cluster.node(node) else { return false };
        let mut free = state.allocatable.clone();
        free.subtract(&state.used);
        let mut any = false;
        for pod in state.daemon_pods.iter().map(|pod| self.cluster.pod_by_id(*pod)) {
            let is_own = pod.is_of(daemon_set);
            if is_own && pod.node.is_some() && pod.is_live() && pod.is_terminating {
                free.add(&pod.requests);
                any = true;
            }
        }
        any && free.lacks(&self.asking.requests).is_none()
    }
}

impl Facts for Preemptor<'_> {
    fn preemptor(&mut self) -> preemption::Preemptor {
        match self.asking.role {
            PodClass::Exempt => preemption::Preemptor::Exempt,
            PodClass::Ordinary => preemption::Preemptor::Ordinary,
            PodClass::Daemon(_) => preemption::Preemptor::Daemon,
        }
    }

    fn is_daemon_pod(&mut self, uid: &str) -> bool {
        self.is_daemon_victim(uid)
    }

    fn ends_in_kept_room(&mut self, candidate: &PreemptionCandidate<'_>) -> bool {
        self.would_take_kept_room(&candidate.node, candidate.victims.iter().map(|uid| &**uid))
    }

    fn predecessor_leaves_room(&mut self, candidate: &PreemptionCandidate<'_>) -> bool {
        self.predecessor_makes_room(&candidate.node)
    }
}
