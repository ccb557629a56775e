//! The daemon pods that a node lacks.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Reservation;
use crate::cache::daemonset_info::{DaemonSetInfo, PodDemand};
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
    /// The priority, the requests and the ports of the pod, shared by the nodes.
    pub demand: Arc<PodDemand>,
    /// The amounts to be reserved, if they are not the requests: terminating pods of the DaemonSet still hold some on the node.
    rest: Option<Box<Resources>>,
}

impl MissingDaemonPod {
    /// Returns the record of a missing pod. `still_held` is what terminating pods of the DaemonSet hold on the node.
    pub fn new(
        daemon_set: DaemonSetId,
        pending: Option<PodId>,
        demand: Arc<PodDemand>,
        still_held: &Resources,
    ) -> Self {
        let rest = demand.requests.saturating_difference(still_held);
        let rest = (rest != demand.requests).then(|| Box::new(rest));
        Self { daemon_set, pending, demand, rest }
    }

    /// The pod's priority.
    pub fn priority(&self) -> i32 {
        self.demand.priority
    }

    /// The amounts that the pod requests.
    pub fn need(&self) -> &Resources {
        &self.demand.requests
    }

    /// The amounts to be reserved: [`Self::need`] without those that terminating pods of the DaemonSet still hold on the node.
    pub fn reserved(&self) -> &Resources {
        self.rest.as_deref().unwrap_or(&self.demand.requests)
    }

    /// Ports of the host that the pod takes.
    pub fn host_ports(&self) -> &[HostPort] {
        &self.demand.host_ports
    }

    /// Returns true if a pod that was refused for `other` might pass with room reserved for this pod instead.
    pub(super) fn reserves_less_than(&self, other: &Self) -> bool {
        self.priority() < other.priority()
            || self.reserved().lacks(other.reserved()).is_some()
            || !Arc::ptr_eq(&self.demand, &other.demand)
                && other.host_ports().iter().any(|port| !self.host_ports().contains(port))
    }
}

/// The pods of one DaemonSet on a node.
#[derive(Debug, Default)]
struct Presence {
    /// A pod is bound, and neither terminal nor terminating.
    has_landed: bool,
    /// The newest pod that is for the node and not bound.
    pending: Option<PodId>,
    /// The amounts that terminating pods still hold.
    still_held: Resources,
    /// A bound pod is terminating.
    is_leaving: bool,
}

/// The daemon pods of a node, in one pass.
#[derive(Debug, Default)]
pub(super) struct NodeInventory {
    /// The daemon pods that the node lacks.
    pub(super) missing: Vec<MissingDaemonPod>,
    /// The desired DaemonSets that have landed and are not missing.
    pub(super) landed: Vec<DaemonSetId>,
    /// The missing DaemonSets of which a bound pod is there, terminating or with surge.
    pub(super) predecessors: Vec<DaemonSetId>,
    /// The number of desired DaemonSets beyond [`MAX_HOLDING`].
    pub(super) beyond_limit: usize,
}

impl Reservation {
    /// Returns the daemon pods that a node lacks: one is desired, and none of the DaemonSet is bound that is neither terminal nor
    /// terminating; or, with surge, the new one is not bound yet.
    pub(super) fn inventory_of(&self, cache: &Cache, id: NodeId) -> NodeInventory {
        let mut inventory = NodeInventory::default();
        let present = presence_on(cache, id);
        let may_hold = |daemon_set: &&DaemonSetId| self.daemon_sets[**daemon_set].may_hold;
        let mut holding: Vec<DaemonSetId> = self.nodes[id].desired.iter().filter(may_hold).copied().collect();
        inventory.beyond_limit = keep_oldest(cache, &mut holding);
        let none = Presence::default();
        for daemon_set in holding {
            let Some(info) = cache.daemon_set_if_known(daemon_set) else { continue };
            let presence = present.get(&daemon_set).unwrap_or(&none);
            if presence.has_landed && !(info.uses_surge && presence.pending.is_some()) {
                inventory.landed.push(daemon_set);
                continue;
            }
            if presence.has_landed || presence.is_leaving {
                inventory.predecessors.push(daemon_set);
            }
            inventory.missing.push(missing_pod(cache, daemon_set, info, presence));
        }
        inventory
    }

    /// Returns the daemon pods that a node lacks.
    #[cfg(test)]
    pub(super) fn missing_on(&self, cache: &Cache, id: NodeId) -> Vec<MissingDaemonPod> {
        self.inventory_of(cache, id).missing
    }
}

/// The DaemonSets of one namespace that may hold room on one node. Distributions run up to thirty in kube-system.
const MAX_HOLDING: usize = 64;

/// Keeps the oldest [`MAX_HOLDING`] DaemonSets of each namespace. Returns the number of the others.
fn keep_oldest(cache: &Cache, daemon_sets: &mut Vec<DaemonSetId>) -> usize {
    let before = daemon_sets.len();
    if before <= MAX_HOLDING {
        return 0;
    }
    let mut by_namespace: HashMap<&str, Vec<DaemonSetId>> = HashMap::new();
    for id in daemon_sets.drain(..) {
        let namespace = cache.daemon_set_by_id(id).daemon_set.metadata.namespace.as_str();
        by_namespace.entry(namespace).or_default().push(id);
    }
    for (_, mut of_namespace) in by_namespace {
        if of_namespace.len() > MAX_HOLDING {
            of_namespace.select_nth_unstable_by_key(MAX_HOLDING, |id| cache.daemon_set_by_id(*id).age_key());
            of_namespace.truncate(MAX_HOLDING);
        }
        daemon_sets.append(&mut of_namespace);
    }
    before - daemon_sets.len()
}

fn presence_on(cache: &Cache, id: NodeId) -> HashMap<DaemonSetId, Presence> {
    let mut present: HashMap<DaemonSetId, Presence> = HashMap::new();
    for pod_id in cache.node_if_known(id).into_iter().flat_map(|node| &node.daemon_pods) {
        let pod = cache.pod_by_id(*pod_id);
        let daemon_set = pod.daemon.as_ref().and_then(|daemon| daemon.daemon_set);
        let Some(daemon_set) = daemon_set.filter(|_| pod.is_unfinished()) else { continue };
        let presence = present.entry(daemon_set).or_default();
        match (pod.node.is_some(), pod.is_terminating) {
            (true, true) => {
                presence.still_held.add(&pod.requests);
                presence.is_leaving = true;
            }
            (true, false) => presence.has_landed = true,
            (false, true) => {}
            (false, false) => {
                let other = presence.pending;
                if other.is_none_or(|other| cache.age_key(other) < cache.age_key(*pod_id)) {
                    presence.pending = Some(*pod_id);
                }
            }
        }
    }
    present
}

fn missing_pod(
    cache: &Cache,
    daemon_set: DaemonSetId,
    info: &DaemonSetInfo,
    presence: &Presence,
) -> MissingDaemonPod {
    let demand = match presence.pending.map(|pod| cache.pod_by_id(pod)) {
        Some(pod) if !pod.has_demand(&info.demand) => Arc::new(pod.demand()),
        Some(_) | None => info.demand.clone(),
    };
    MissingDaemonPod::new(daemon_set, presence.pending, demand, &presence.still_held)
}

/// Returns true if a pod of the DaemonSet is bound to the node and is neither terminal nor terminating.
pub(super) fn has_landed(cache: &Cache, id: NodeId, daemon_set: DaemonSetId) -> bool {
    let pods = cache.node_if_known(id).into_iter().flat_map(|node| &node.daemon_pods);
    pods.map(|pod| cache.pod_by_id(*pod)).any(|pod| pod.has_landed_for(daemon_set))
}
