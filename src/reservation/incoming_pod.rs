//! The pod of a call: its class, and the resources that a node has left for it.

use std::sync::Arc;

use super::Reservation;
use super::assumed::AllowedPod;
use super::hold::{Hold, HoldState};
use super::hold_basis::HoldBasis;
use super::packing::PackingOrder;
use crate::api::pod::{Pod, SYSTEM_CRITICAL_PRIORITY};
use crate::cache::pod_info::PodInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::daemonset::daemon_pod::target_node_name;
use crate::policy::ReservationMode;
use crate::policy::opt_out::{has_own_label, is_opted_out};
use crate::scheduling::host_ports::{HostPort, MAX_HOST_PORTS, any_conflict, host_ports};
use crate::scheduling::resources::{Resources, pod_requests};

/// The namespace of the cluster's own pods.
const KUBE_SYSTEM: &str = "kube-system";

/// The facts about the pod of a call that its object alone shows. They are computed before the cache is locked: a pod can be of
/// megabytes.
#[derive(Debug)]
pub struct IncomingDemand<'p> {
    pod: &'p Pod,
    target: Option<&'p str>,
    requests: Resources,
    host_ports: Arc<[HostPort]>,
    /// The pod asks for so many ports of the host that it counts as if it asked for all of them.
    asks_all_ports: bool,
}

impl<'p> IncomingDemand<'p> {
    /// Computes the demand of `pod`.
    pub fn of(pod: &'p Pod) -> Self {
        let mut requests = pod_requests(pod);
        requests.limit_scalars();
        let mut host_ports = host_ports(&pod.spec);
        let asks_all_ports = host_ports.len() > MAX_HOST_PORTS;
        if asks_all_ports {
            host_ports = Box::default();
        }
        let host_ports = host_ports.into();
        Self { pod, target: target_node_name(&pod.spec), requests, host_ports, asks_all_ports }
    }
}

/// The pod of a call, computed once for all nodes.
#[derive(Debug)]
pub(super) struct IncomingPod {
    pub(super) uid: Arc<str>,
    pub(super) class: PodClass,
    /// The verified DaemonSet, also of an exempt pod.
    pub(super) daemon_set: Option<DaemonSetId>,
    /// True if the scheduler waits for claims of the pod before it binds it.
    pub(super) needs_claims: bool,
    /// False if no scheduler has tried and failed the pod, as far as the cache knows: anybody can send a review of its binding.
    pub(super) has_failed: bool,
    /// The node that a daemon pod is for. On other nodes it counts as an ordinary pod.
    target: Option<NodeId>,
    pub(super) priority: i32,
    pub(super) requests: Resources,
    host_ports: Arc<[HostPort]>,
    asks_all_ports: bool,
}

/// The class of a pod, which decides the holds that count against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PodClass {
    /// A system-critical pod, one that opted out, or the warden's own: no hold counts, but the pod counts for the next one.
    Exempt,
    /// Any other pod: holds of the same or higher priority count.
    Ordinary,
    /// A pod of a verified DaemonSet: on its target, holds of higher priority count.
    Daemon(DaemonSetId),
}

/// The resources of a node that the holds against a pod leave.
#[derive(Debug)]
pub(super) struct Remaining {
    pub(super) free: Resources,
    /// True if the pod asks for host ports that a hold reserves.
    ports_collide: bool,
}

/// The facts that exempt a pod from holds.
struct ExemptingFacts<'p> {
    namespace: &'p str,
    priority: i32,
    is_opted_out: bool,
    has_own_label: bool,
    /// True for the binding of a pod of kube-system that no DaemonSet owns: the cluster needs such pods to get well again.
    is_system_binding: bool,
}

impl Reservation {
    fn class_of(
        &self,
        cache: &Cache,
        facts: &ExemptingFacts<'_>,
        daemon_set: Option<DaemonSetId>,
    ) -> PodClass {
        if self.policy.reservation.mode == ReservationMode::Off || self.is_exempt(cache, facts) {
            return PodClass::Exempt;
        }
        daemon_set.map_or(PodClass::Ordinary, PodClass::Daemon)
    }

    fn is_exempt(&self, cache: &Cache, facts: &ExemptingFacts<'_>) -> bool {
        let namespace = cache.namespace(facts.namespace);
        facts.priority >= SYSTEM_CRITICAL_PRIORITY
            || facts.has_own_label && self.own_namespace.as_deref() == Some(facts.namespace)
            || facts.is_opted_out
            || facts.is_system_binding
            || namespace.is_some_and(|namespace| is_opted_out(&namespace.metadata.labels))
    }

    /// Returns true if no hold counts against the binding of a cached pod.
    pub(super) fn is_exempt_pod(&self, cache: &Cache, pod: &PodInfo) -> bool {
        self.is_exempt(cache, &ExemptingFacts::of_cached(pod))
    }
}

impl<'p> ExemptingFacts<'p> {
    fn of(pod: &'p Pod) -> Self {
        Self {
            namespace: &pod.metadata.namespace,
            priority: pod.priority(),
            is_opted_out: is_opted_out(&pod.metadata.labels),
            has_own_label: has_own_label(&pod.metadata.labels),
            is_system_binding: false,
        }
    }

    fn of_cached(pod: &'p PodInfo) -> Self {
        Self {
            namespace: &pod.namespace,
            priority: pod.priority,
            is_opted_out: pod.is_opted_out,
            has_own_label: pod.has_own_label,
            is_system_binding: *pod.namespace == *KUBE_SYSTEM && pod.daemon.is_none(),
        }
    }
}

impl IncomingPod {
    pub(super) fn of(reservation: &Reservation, cache: &Cache, demand: &IncomingDemand<'_>) -> Self {
        let IncomingDemand { pod, target, requests, host_ports, asks_all_ports } = demand;
        let daemon_set = cache.verified_daemon_set(pod);
        Self {
            uid: pod.metadata.uid.as_str().into(),
            class: reservation.class_of(cache, &ExemptingFacts::of(pod), daemon_set),
            daemon_set,
            needs_claims: pod.spec.needs_claims(),
            // The scheduler sends the pod as it is; the cache may be behind.
            has_failed: true,
            target: target.and_then(|name| cache.node_id(name)),
            priority: pod.priority(),
            requests: requests.clone(),
            host_ports: host_ports.clone(),
            asks_all_ports: *asks_all_ports,
        }
    }

    /// Returns the facts about a cached pod that is about to be bound. Its volumes are there by then: the scheduler makes them
    /// before.
    pub(super) fn of_cached(reservation: &Reservation, cache: &Cache, pod: &PodInfo) -> Self {
        let daemon = pod.daemon.as_deref();
        let daemon_set = daemon.and_then(|daemon| daemon.daemon_set);
        Self {
            uid: pod.uid.clone(),
            class: reservation.class_of(cache, &ExemptingFacts::of_cached(pod), daemon_set),
            daemon_set,
            needs_claims: false,
            has_failed: pod.has_failed,
            target: daemon.and_then(|daemon| daemon.target),
            priority: pod.priority,
            requests: pod.requests.clone(),
            host_ports: pod.host_ports.clone(),
            asks_all_ports: pod.asks_all_ports,
        }
    }

    /// Returns true if the pod asks for ports of the host.
    pub(super) fn asks_ports(&self) -> bool {
        self.asks_all_ports || !self.host_ports.is_empty()
    }

    /// Returns what is assumed of the pod where it is allowed.
    pub(super) fn into_allowed(self) -> AllowedPod {
        let Self { uid, requests, daemon_set, needs_claims, .. } = self;
        AllowedPod { uid, requests, daemon_set, needs_claims }
    }

    /// Returns true if a hold on this node counts against the pod: for an ordinary pod, one of the same or higher priority; for a
    /// daemon pod, one that goes before it in the order of the node's daemon pods. Its own hold never does.
    pub(super) fn is_held_by(&self, cache: &Cache, node: NodeId, hold: &Hold) -> bool {
        if self.class == PodClass::Exempt || hold.state != HoldState::Held {
            return false;
        }
        let info = |id: DaemonSetId| cache.daemon_set_if_known(id);
        match self.daemon_set_on(node) {
            None => hold.pod.priority() >= self.priority,
            Some(own) if own == hold.pod.daemon_set => false,
            Some(own) => match (info(hold.pod.daemon_set), info(own)) {
                (Some(other), Some(own)) => {
                    PackingOrder::of_daemon(hold.pod.priority(), other)
                        < PackingOrder::of_daemon(self.priority, own)
                }
                _ => false,
            },
        }
    }

    /// Returns the resources that a node has left beside the holds against the pod, and beside the nominated pods of the same or
    /// higher priority; `None` if no hold counts against the pod. Assumed pods are not subtracted. The node must not be dirty.
    pub(super) fn remaining_beside_holds(
        &self,
        reservation: &Reservation,
        cache: &Cache,
        id: NodeId,
    ) -> Option<Remaining> {
        let holds = &reservation.nodes[id].holds;
        self.remaining_beside(reservation, cache, id, holds, |hold| self.is_held_by(cache, id, hold))
    }

    /// Returns true if the pod would be refused on a node for the holds alone whose pods wait there, and for nothing but room.
    pub(super) fn is_refused_for_proven(
        &self,
        reservation: &Reservation,
        cache: &Cache,
        id: NodeId,
        holds: &[Hold],
    ) -> bool {
        let counts =
            |hold: &Hold| hold.basis.is_some_and(HoldBasis::is_proven) && self.is_held_by(cache, id, hold);
        let remaining = self.remaining_beside(reservation, cache, id, holds, counts);
        remaining.is_some_and(|remaining| remaining.lacks_room_for(self))
    }

    fn remaining_beside(
        &self,
        reservation: &Reservation,
        cache: &Cache,
        id: NodeId,
        all: &[Hold],
        counts: impl Fn(&Hold) -> bool,
    ) -> Option<Remaining> {
        let mut holds = all.iter().filter(|hold| counts(hold)).peekable();
        holds.peek()?;
        let node = cache.node_by_id(id);
        let mut remaining = Remaining { free: node.allocatable.clone(), ports_collide: false };
        remaining.free.subtract(&node.requested);
        for hold in holds {
            remaining.free.subtract(hold.pod.reserved());
            let held = hold.pod.host_ports();
            remaining.ports_collide |=
                self.asks_all_ports && !held.is_empty() || any_conflict(&self.host_ports, held);
        }
        for pod_id in &node.nominated {
            let pod = cache.pod_by_id(*pod_id);
            // The hold of a nominated daemon pod has been subtracted already.
            let is_reserved = all.iter().any(|hold| hold.pod.pending == Some(*pod_id) && counts(hold))
                || reservation.assumed.is_assumed_on(&pod.uid, id);
            if pod.uid != self.uid && pod.priority >= self.priority && !is_reserved {
                remaining.free.subtract(&pod.requests);
            }
        }
        Some(remaining)
    }

    /// Returns the DaemonSet of the pod if this node is its target; `None` for any other node or pod.
    pub(super) fn daemon_set_on(&self, node: NodeId) -> Option<DaemonSetId> {
        match self.class {
            PodClass::Daemon(daemon_set) if self.target == Some(node) => Some(daemon_set),
            PodClass::Daemon(_) | PodClass::Ordinary | PodClass::Exempt => None,
        }
    }
}

impl Remaining {
    pub(super) fn lacks_room_for(&self, pod: &IncomingPod) -> bool {
        self.ports_collide || self.free.lacks(&pod.requests).is_some()
    }
}
