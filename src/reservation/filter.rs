//! One call of the scheduler: may this pod go on these nodes?
//!
//! ```text
//! let mut call = cluster.judge(&pod, now);       what the pod asks for, worked out once
//! for name in names { call.refuse(name) }        one look-up each
//! let tally = call.finish();                     the pod is entered into the ledger
//! ```

use std::sync::Arc;
use std::time::Instant;

use super::assumed::NodeSet;
use super::filter_reason::FilterReason;
use super::hold::Hold;
use crate::api::pod::{Pod, SYSTEM_CRITICAL_PRIORITY};
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::node_info::{NodeFreshness, NodeInfo};
use crate::cache::pod_info::PodInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::daemonset::daemon_pod::{daemon_set_reference, target_node_name};
use crate::policy::ReservationMode;
use crate::policy::opt_out::is_opted_out;
use crate::scheduling::host_ports::{HostPort, any_conflict, host_ports};
use crate::scheduling::resources::{Resources, pod_requests};

/// The label by which the warden's own pods are known in its namespace.
const OWN_LABEL: (&str, &str) = ("app.kubernetes.io/name", "daemonset-warden");
/// How many refused pods are remembered at most; more would only be woken together with these.
const MAX_WAITING: usize = 100_000;

/// A pod that the scheduler asks about.
#[derive(Debug)]
pub struct FilterCall<'c> {
    cluster: &'c mut Cache,
    now: Instant,
    asking: IncomingPod,
    passed: NodeSet,
    passed_any: bool,
    refused_any: bool,
    /// How often something would have been refused in Audit mode.
    audited: u64,
}

/// What is to be known of the pod.
#[derive(Debug)]
pub(crate) struct IncomingPod {
    uid: Arc<str>,
    pub(crate) role: PodClass,
    /// Where it is at home, if it is a daemon pod: nowhere else does it have the rights of one.
    target: Option<NodeId>,
    pub(crate) priority: i32,
    pub(crate) requests: Resources,
    pub(crate) host_ports: Box<[HostPort]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodClass {
    /// Nothing is kept from it.
    Exempt,
    Ordinary,
    /// A pod of a real DaemonSet: room is kept only for more important ones.
    Daemon(DaemonSetId),
}

/// What is left on a node beside what is kept there.
#[derive(Debug)]
pub(crate) struct Remaining {
    pub(crate) free: Resources,
    /// Whether the pod wants ports that are kept, too.
    ports_collide: bool,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterStats {
    /// How many nodes would have been refused in Audit mode.
    pub audited: u64,
}

impl Cache {
    /// Takes up a pod that the scheduler asks about.
    pub fn judge(&mut self, pod: &Pod, now: Instant) -> FilterCall<'_> {
        let asking = IncomingPod::of(self, pod);
        let passed = NodeSet::with_capacity(self.node_capacity());
        FilterCall { cluster: self, now, asking, passed, passed_any: false, refused_any: false, audited: 0 }
    }

    /// The node that a pod is for, if it is a pod of a real DaemonSet: that exists with the UID that the pod names, in its
    /// namespace, and whose selector matches the pod.
    pub fn genuine_target<'p>(&self, pod: &'p Pod) -> Option<&'p str> {
        self.genuine_daemon_set(pod)?;
        target_node_name(&pod.spec)
    }

    fn genuine_daemon_set(&self, pod: &Pod) -> Option<DaemonSetId> {
        let kinds = &self.policy().daemon_set_kinds;
        let owner = daemon_set_reference(kinds, &pod.metadata)?;
        let (id, info) = self.daemon_set(&owner.uid)?;
        info.owns(&pod.metadata.namespace, &pod.metadata.labels).then_some(id)
    }

    /// Returns true if an ordinary pod of this priority has to wait until the missing events have come.
    fn must_wait_while_stale(&mut self, priority: i32, now: Instant) -> bool {
        let concerns = |info: &DaemonSetInfo| info.may_hold && info.weight.priority >= priority;
        self.freshness.lacks_events()
            && self.daemon_sets().any(|(_, info)| concerns(info))
            && self.stale_refusals.refuses(now)
    }

    fn role_of(&self, pod: &Pod) -> PodClass {
        let metadata = &pod.metadata;
        let namespace = self.namespace(&metadata.namespace);
        let is_own = self.own_namespace() == Some(&metadata.namespace)
            && metadata.labels.get(OWN_LABEL.0).is_some_and(|value| value == OWN_LABEL.1);
        let is_exempt = self.policy().reservation.mode == ReservationMode::Off
            || pod.priority() >= SYSTEM_CRITICAL_PRIORITY
            || is_own
            || is_opted_out(&metadata.labels)
            || namespace.is_some_and(|namespace| is_opted_out(&namespace.metadata.labels));
        if is_exempt {
            return PodClass::Exempt;
        }
        self.genuine_daemon_set(pod).map_or(PodClass::Ordinary, PodClass::Daemon)
    }
}

impl IncomingPod {
    pub(crate) fn of(cluster: &Cache, pod: &Pod) -> Self {
        Self {
            uid: pod.metadata.uid.as_str().into(),
            role: cluster.role_of(pod),
            target: target_node_name(&pod.spec).and_then(|name| cluster.node_id(name)),
            priority: pod.priority(),
            requests: pod_requests(pod),
            host_ports: host_ports(&pod.spec),
        }
    }

    /// Whether a hold on this node keeps room from the pod: one that is important enough, and so never its own.
    pub(crate) fn is_held_by(&self, node: NodeId, hold: &Hold) -> bool {
        self.role != PodClass::Exempt
            && hold.is_held_against(self.priority, self.daemon_set_on(node).is_some())
    }

    /// What a node has left beside the room that is kept from the pod there, and beside the pods of its own or higher priority
    /// that preemption makes room for; `None` where no room is kept from it. Pods that are on their way are not counted.
    pub(crate) fn left_beside_holds(
        &self,
        cluster: &Cache,
        id: NodeId,
        node: &NodeInfo,
    ) -> Option<Remaining> {
        let counts = |hold: &Hold| self.is_held_by(id, hold);
        let mut holds = node.holds.iter().filter(|hold| counts(hold)).peekable();
        holds.peek()?;
        let mut left = Remaining { free: node.allocatable.clone(), ports_collide: false };
        left.free.subtract(&node.used);
        for hold in holds {
            left.free.subtract(&hold.reserve);
            left.ports_collide |= any_conflict(&self.host_ports, &hold.host_ports);
        }
        for pod_id in &node.nominated {
            let pod = cluster.pod_by_id(*pod_id);
            // What is kept for a missing daemon pod is not counted again where preemption makes room for it.
            let is_reserved = node.holds.iter().any(|hold| hold.pending == Some(*pod_id) && counts(hold))
                || cluster.ledger.is_charged(&pod.uid, id);
            if pod.uid != self.uid && pod.priority >= self.priority && !is_reserved {
                left.free.subtract(&pod.requests);
            }
        }
        Some(left)
    }

    /// The DaemonSet of a pod that is a daemon pod on this node.
    fn daemon_set_on(&self, node: NodeId) -> Option<DaemonSetId> {
        match self.role {
            PodClass::Daemon(daemon_set) if self.target == Some(node) => Some(daemon_set),
            PodClass::Daemon(_) | PodClass::Ordinary | PodClass::Exempt => None,
        }
    }
}

impl Remaining {
    pub(crate) fn is_too_little_for(&self, asking: &IncomingPod) -> bool {
        self.ports_collide || self.free.lacks(&asking.requests).is_some()
    }
}

impl FilterCall<'_> {
    /// Whether the pod may not go on the node of this name, and why. A node that is not known passes.
    pub fn refuse(&mut self, name: &str) -> Option<FilterReason> {
        if self.asking.role == PodClass::Exempt {
            return None;
        }
        if self.asking.role == PodClass::Ordinary
            && self.cluster.must_wait_while_stale(self.asking.priority, self.now)
        {
            return self.refuse_while_stale();
        }
        let Some(id) = self.cluster.node_id(name) else {
            self.passed_any = true;
            return None;
        };
        if self.cluster.node_by_id(id).is_dirty {
            self.cluster.refresh(id, self.now);
        }
        match self.judge_node(id) {
            Some(_) if self.cluster.policy().reservation.mode == ReservationMode::Audit => {
                self.audited += 1;
                // It goes there all the same, so that the next one finds that much less.
                self.let_onto(id)
            }
            Some(kept) => {
                self.note_refusal(id, kept);
                Some(kept)
            }
            None => self.let_onto(id),
        }
    }

    fn let_onto(&mut self, id: NodeId) -> Option<FilterReason> {
        self.passed.insert(id);
        self.passed_any = true;
        None
    }

    /// Refuses any node, known or not, because the cache lacks events.
    fn refuse_while_stale(&mut self) -> Option<FilterReason> {
        if self.cluster.policy().reservation.mode == ReservationMode::Audit {
            self.audited += 1;
            self.passed_any = true;
            return None;
        }
        self.refused_any = true;
        Some(FilterReason::StaleCache)
    }

    /// Enters the pod into the ledger, in place of what it was charged before.
    pub fn finish(self) -> FilterStats {
        let Self { cluster, now, asking, passed, passed_any, refused_any, audited } = self;
        let daemon_set = match asking.role {
            PodClass::Daemon(daemon_set) => Some(daemon_set),
            PodClass::Ordinary => None,
            PodClass::Exempt => return FilterStats { audited },
        };
        if cluster.ledger.charge(asking.uid.clone(), asking.requests, daemon_set, passed, now) {
            cluster.charge_ended(now);
        }
        if passed_any {
            cluster.waiting.remove(&asking.uid);
        } else if refused_any && cluster.waiting.len() < MAX_WAITING {
            cluster.waiting.insert(asking.uid, now);
        }
        FilterStats { audited }
    }

    fn judge_node(&mut self, id: NodeId) -> Option<FilterReason> {
        let node = self.cluster.node_by_id(id);
        if node.is_kept {
            if let Some(by_charge) = self.room_is_kept(id, node) {
                if by_charge {
                    self.cluster.last_refused_by_charge = Some(self.now);
                }
                return Some(FilterReason::Reserved);
            }
            if self.asking.daemon_set_on(id).is_none() && node.gates.iter().any(|gate| gate.is_closed) {
                return Some(FilterReason::DaemonPodNotReady);
            }
        }
        (self.is_awaited(id) || self.view_is_stale(id)).then_some(FilterReason::StaleCache)
    }

    /// Whether a daemon pod waits for a node whose Node we have not seen yet: the scheduler and the controller have, so our watch
    /// of nodes is behind that of pods.
    fn is_awaited(&mut self, id: NodeId) -> bool {
        let cluster = &*self.cluster;
        let node = cluster.node_by_id(id);
        // The first is known at once of nearly all nodes, the second is far away in memory.
        let is_seen = node.highest_wanted_priority.is_some() || node.node.is_some();
        if is_seen || self.asking.daemon_set_on(id).is_some() {
            return false;
        }
        let concerns = |pod: &PodInfo| {
            let daemon_set = pod.daemon.as_ref().and_then(|daemon| daemon.daemon_set);
            let may_hold = daemon_set.is_some_and(|id| cluster.daemon_set_by_id(id).may_hold);
            may_hold && pod.node.is_none() && pod.is_live() && pod.priority >= self.asking.priority
        };
        if !node.daemon_pods.iter().any(|pod| concerns(cluster.pod_by_id(*pod))) {
            return false;
        }
        let now = self.now;
        let staleness = &mut self.cluster.node_mut(id).staleness;
        if *staleness == NodeFreshness::Fresh {
            *staleness = NodeFreshness::Stale(now);
        }
        staleness.refuses(now)
    }

    /// Whether the pod would take room or ports of a missing daemon pod that is important enough; and if so whether only
    /// because of pods that are on their way.
    fn room_is_kept(&self, id: NodeId, node: &NodeInfo) -> Option<bool> {
        let asking = &self.asking;
        let mut left = asking.left_beside_holds(self.cluster, id, node)?;
        if left.is_too_little_for(asking) {
            return Some(false);
        }
        let is_kept_for = |daemon_set| {
            node.holds.iter().any(|hold| hold.daemon_set == daemon_set && asking.is_held_by(id, hold))
        };
        self.cluster.ledger.subtract_from(&mut left.free, id, &asking.uid, is_kept_for);
        left.is_too_little_for(asking).then_some(true)
    }

    /// Whether the scheduler has offered a node where the pod does not fit in our own view, nor beside those that have just gone
    /// there: a pod has left that we still count, maybe a daemon's, whose room is not to be given away before we have seen it.
    fn view_is_stale(&mut self, id: NodeId) -> bool {
        if self.asking.daemon_set_on(id).is_some() {
            return false;
        }
        let now = self.now;
        let IncomingPod { priority, requests, .. } = &self.asking;
        let node = self.cluster.node_by_id(id);
        if node.highest_wanted_priority.is_none_or(|wanted| wanted < *priority) {
            return false;
        }
        let mut fits = node.allocatable.has_room_beside(&node.used, requests);
        if fits && let Some(mut taken) = self.cluster.ledger.certain_on(id, &self.asking.uid) {
            taken.add(&node.used);
            fits = node.allocatable.has_room_beside(&taken, requests);
        }
        let staleness = match node.staleness {
            NodeFreshness::Fresh if fits => return false,
            NodeFreshness::Fresh => NodeFreshness::Stale(now),
            // Only what asks for as much tells that we have caught up: a smaller pod would fit anyway.
            _ if fits && requests.lacks(&node.offered).is_none() => NodeFreshness::Fresh,
            _ if fits => return false,
            staleness if staleness.refuses(now) => return true,
            NodeFreshness::Stale(_) | NodeFreshness::StaleIgnored => NodeFreshness::StaleIgnored,
        };
        let is_behind = matches!(staleness, NodeFreshness::Stale(_));
        let offered = is_behind.then(|| requests.clone());
        let node = self.cluster.node_mut(id);
        node.staleness = staleness;
        if let Some(offered) = offered {
            node.offered = offered;
        }
        is_behind
    }

    fn note_refusal(&mut self, id: NodeId, kept: FilterReason) {
        self.refused_any = true;
        let Self { now, asking, cluster, .. } = self;
        let now = *now;
        let node = cluster.node_mut(id);
        node.last_refused = Some(now);
        let mut first = Vec::new();
        match kept {
            FilterReason::Reserved => {
                for hold in node.holds.iter_mut().filter(|hold| asking.is_held_by(id, hold)) {
                    if hold.refused(&asking.uid, now) {
                        first.push(hold.daemon_set);
                    }
                }
            }
            FilterReason::DaemonPodNotReady => {
                for gate in node.gates.iter_mut().filter(|gate| gate.is_closed) {
                    gate.refused(&asking.uid, now);
                }
            }
            FilterReason::StaleCache => {}
            // Reasons of the pod itself, which the caller finds before it asks here.
            FilterReason::NotTarget | FilterReason::NodeSelector | FilterReason::Taint => {}
        }
        for daemon_set in first {
            cluster.begin_refusing(id, daemon_set, now);
        }
    }
}
