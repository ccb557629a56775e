//! The daemon pods that a node lacks.

use super::Reservation;
use crate::cache::{Cache, DaemonSetId, NodeId, PodId};
use crate::scheduling::host_ports::HostPort;
use crate::scheduling::resources::Resources;

/// A daemon pod that a node lacks.
#[derive(Debug, Clone)]
pub struct MissingDaemonPod {
    /// The DaemonSet of the pod.
    pub daemon_set: DaemonSetId,
    /// The pod, once the DaemonSet controller has created it. Look it up only while the node is not dirty: a deleted pod's id is
    /// given out again.
    pub pending: Option<PodId>,
    /// The pod's priority.
    pub priority: i32,
    /// The amounts that the pod requests.
    pub need: Resources,
    /// The amounts to be reserved: `need` without those that terminating pods of the DaemonSet still hold on the node.
    pub reserved: Resources,
    /// The ports of the host that the pod takes.
    pub host_ports: Box<[HostPort]>,
}

impl MissingDaemonPod {
    /// Returns true if a pod that was refused for `other` might be allowed with room reserved for this pod instead: its priority is
    /// lower, or it reserves less of a resource or fewer ports.
    pub(super) fn reserves_less_than(&self, other: &Self) -> bool {
        self.priority < other.priority
            || self.reserved.lacks(&other.reserved).is_some()
            || other.host_ports.iter().any(|port| !self.host_ports.contains(port))
    }
}

impl Reservation {
    /// Returns the daemon pods that a node lacks: one for each desired DaemonSet that may hold and has no pod bound there, terminal
    /// and terminating pods aside. With surge, a new pod that is not bound yet is missing even beside the old one.
    pub(super) fn missing_on(&self, cache: &Cache, id: NodeId) -> Vec<MissingDaemonPod> {
        let may_hold = |daemon_set: &&DaemonSetId| self.daemon_sets[**daemon_set].may_hold;
        let holding = self.nodes[id].desired.iter().filter(may_hold);
        holding.filter_map(|daemon_set| missing_pod(cache, id, *daemon_set)).collect()
    }
}

fn missing_pod(cache: &Cache, id: NodeId, daemon_set: DaemonSetId) -> Option<MissingDaemonPod> {
    let info = cache.daemon_set_if_known(daemon_set)?;
    let mut has_bound = false;
    let mut pending: Option<PodId> = None;
    let mut still_held = Resources::default();
    for pod_id in &cache.node_if_known(id)?.daemon_pods {
        let pod = cache.pod_by_id(*pod_id);
        if !pod.is_of(daemon_set) || !pod.is_unfinished() {
            continue;
        }
        match (pod.node.is_some(), pod.is_terminating) {
            (true, true) => still_held.add(&pod.requests),
            (true, false) => has_bound = true,
            (false, true) => {}
            (false, false) => {
                let is_newer = pending.is_none_or(|other| cache.age_key(other) < cache.age_key(*pod_id));
                pending = if is_newer { Some(*pod_id) } else { pending };
            }
        }
    }
    if has_bound && !(info.uses_surge && pending.is_some()) {
        return None;
    }
    let (priority, need, host_ports) = match pending {
        Some(pod) => {
            let pod = cache.pod_by_id(pod);
            (pod.priority, pod.requests.clone(), pod.host_ports.clone())
        }
        None => (info.demand.priority, info.demand.requests.clone(), info.demand.host_ports.clone()),
    };
    let reserved = need.saturating_difference(&still_held);
    Some(MissingDaemonPod { daemon_set, pending, priority, need, reserved, host_ports })
}

/// Returns true if a pod of the DaemonSet is bound to the node and is neither terminal nor terminating.
pub(super) fn has_landed(cache: &Cache, id: NodeId, daemon_set: DaemonSetId) -> bool {
    let pods = cache.node_if_known(id).into_iter().flat_map(|node| &node.daemon_pods);
    pods.map(|pod| cache.pod_by_id(*pod)).any(|pod| pod.has_landed_for(daemon_set))
}
