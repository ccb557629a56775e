//! The filter verb: the nodes of a `/scheduler/filter` call that are refused for a pod.
//!
//! ```text
//! let mut call = reservation.begin_filter(&cache, &pod, now);   the requests of the pod, computed once
//! for name in names { call.refuse(name) }                       one lookup each
//! let stats = call.finish();                                    the pod is assumed on the allowed nodes
//! ```

use std::time::Instant;

use super::Reservation;
use super::door::Door;
use super::filter_reason::FilterReason;
use super::gate::Gate;
use super::incoming_pod::{IncomingDemand, IncomingPod, PodClass, Remaining};
use super::node_reservation::NodeFreshness;
use super::node_set::NodeSet;
use crate::api::pod::Pod;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::pod_info::PodInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::policy::ReservationMode;

/// The most refused pods that are recorded. Pods beyond them are woken together with these.
const MAX_WAITING: usize = 100_000;

/// The numbers of a call that its answer does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterStats {
    /// The number of nodes that only Audit mode has kept from being refused; 0 in other modes.
    pub would_refuse: u64,
    /// False if every node was allowed because the call names more nodes than there are.
    pub is_judged: bool,
}

/// The nodes and counts that a filter call has found so far.
#[derive(Debug, Default)]
pub(super) struct FilterProgress {
    allowed_nodes: NodeSet,
    any_allowed: bool,
    /// The reason of the last refusal.
    refused: Option<FilterReason>,
    would_refuse: u64,
    /// The reason of the last refusal that only Audit mode has prevented.
    pub(super) would_refuse_for: Option<FilterReason>,
    /// The work since the lock was taken, in looked-up names and holds.
    work: usize,
}

/// The work of a call before the lock is given to others: about a millisecond. A call with a handful of holds on each of 5,000
/// nodes needs a few turns.
const MAX_WORK: usize = 10_000;
/// The work of looking at a hold.
const HOLD_WORK: usize = 2;
/// The work of looking at a hold for a pod with host ports.
const PORTS_WORK: usize = 8;
/// The work of refreshing a node with a few DaemonSets, and of the first refusal for a hold.
const REFRESH_WORK: usize = 16;

/// One filter call of the scheduler.
#[derive(Debug)]
pub struct FilterCall<'c> {
    pub(super) reservation: &'c mut Reservation,
    pub(super) cache: &'c Cache,
    pub(super) now: Instant,
    pub(super) pod: IncomingPod,
    pub(super) progress: FilterProgress,
    door: Door,
    /// True if the pod has to wait until the missing events have come. Neither the freshness nor a priority changes within a call.
    waits_for_events: bool,
}

impl Reservation {
    /// Begins a filter call for a pod. It borrows the reservation until [`FilterCall::finish`].
    pub fn begin_filter<'c>(&'c mut self, cache: &'c Cache, pod: &Pod, now: Instant) -> FilterCall<'c> {
        self.resume_filter(cache, &IncomingDemand::of(pod), FilterProgress::default(), now)
    }

    /// Goes on with a filter call after [`FilterCall::pause`]. The facts about the pod are looked up again, for ids are given out
    /// again.
    pub(super) fn resume_filter<'c>(
        &'c mut self,
        cache: &'c Cache,
        demand: &IncomingDemand<'_>,
        mut progress: FilterProgress,
        now: Instant,
    ) -> FilterCall<'c> {
        progress.allowed_nodes.reserve(cache.node_capacity());
        progress.work = 0;
        let pod = IncomingPod::of(self, cache, demand);
        self.begin_call(cache, pod, Door::Filter, progress, now)
    }

    /// Begins a call at one of the doors.
    pub(super) fn begin_call<'c>(
        &'c mut self,
        cache: &'c Cache,
        pod: IncomingPod,
        door: Door,
        progress: FilterProgress,
        now: Instant,
    ) -> FilterCall<'c> {
        FilterCall {
            waits_for_events: pod.class == PodClass::Ordinary && self.waits_for_events(cache, pod.priority),
            pod,
            reservation: self,
            cache,
            now,
            progress,
            door,
        }
    }
}

impl Reservation {
    /// Returns true if the cache lacks events that could show a missing daemon pod of the same or higher priority: some DaemonSet
    /// that may hold has such a priority.
    pub(super) fn waits_for_events(&self, cache: &Cache, priority: i32) -> bool {
        self.freshness.lacks_events() && self.may_hold_against(cache, priority)
    }

    /// Returns true if some DaemonSet that may hold has this priority or a higher one.
    pub(super) fn may_hold_against(&self, cache: &Cache, priority: i32) -> bool {
        let concerns = |id: DaemonSetId, info: &DaemonSetInfo| {
            self.daemon_sets.get(id).is_some_and(|row| row.may_hold)
                && info.may_be_admitted()
                && info.demand.priority >= priority
        };
        cache.daemon_sets().any(|(id, info)| concerns(id, info))
    }
}

impl FilterCall<'_> {
    /// Returns the reason for which the pod is refused on a node. `None` allows the node, as for a name that the cache does not
    /// know. Hot: called once per node name, with one lookup each.
    pub fn refuse(&mut self, name: &str) -> Option<FilterReason> {
        let Self { cache, now, ref pod, .. } = *self;
        if pod.class == PodClass::Exempt {
            if let Some(id) = cache.node_id(name) {
                self.progress.allowed_nodes.insert(id);
            }
            return None;
        }
        if self.waits_for_events && self.reservation.stale_refusals.refuses(now) {
            return self.refuse_while_stale();
        }
        let Some(id) = cache.node_id(name) else {
            self.progress.any_allowed = true;
            return None;
        };
        if self.reservation.nodes[id].is_dirty {
            self.reservation.refresh(cache, id, now);
            self.progress.work += REFRESH_WORK * self.reservation.weight(id);
        }
        match self.check_node(id) {
            Some(reason) if self.is_audit() => {
                self.progress.would_refuse += 1;
                self.progress.would_refuse_for = Some(reason);
                // The pod may be placed there, so it counts for the next pod.
                self.allow(id)
            }
            Some(reason) => {
                self.record_refusal(id, reason);
                Some(reason)
            }
            None => self.allow(id),
        }
    }

    pub(super) fn is_audit(&self) -> bool {
        self.reservation.policy.reservation.mode == ReservationMode::Audit
    }

    fn allow(&mut self, id: NodeId) -> Option<FilterReason> {
        self.progress.allowed_nodes.insert(id);
        self.progress.any_allowed = true;
        None
    }

    /// Refuses any node, known or not, because the cache lacks events. In Audit mode it only counts the node and returns `None`.
    fn refuse_while_stale(&mut self) -> Option<FilterReason> {
        if self.is_audit() {
            self.progress.would_refuse += 1;
            self.progress.would_refuse_for = Some(FilterReason::StaleCache);
            self.progress.any_allowed = true;
            return None;
        }
        self.progress.refused = Some(FilterReason::StaleCache);
        Some(FilterReason::StaleCache)
    }

    /// Ends the call: assumes the pod on the allowed nodes, in place of those of an earlier call, and records it as waiting if
    /// every node was refused.
    pub fn finish(self) -> FilterStats {
        let Self { reservation, cache, now, pod, progress, .. } = self;
        let FilterProgress { allowed_nodes, any_allowed, refused, would_refuse, .. } = progress;
        // Without reservation nothing is asked of the assumed pods.
        if reservation.policy.reservation.mode == ReservationMode::Off {
            return FilterStats { would_refuse, is_judged: true };
        }
        let uid = pod.uid.clone();
        if reservation.assumed.assume(pod.into_allowed(), allowed_nodes, now) {
            reservation.assumed_pod_forgotten(cache, now);
        }
        if any_allowed {
            reservation.waiting.remove(&uid);
        } else if let Some(reason) = refused {
            reservation.waits.begin(&uid, Door::Filter, reason, now);
            if reservation.waiting.len() < MAX_WAITING {
                reservation.waiting.insert(uid, now);
            }
        }
        FilterStats { would_refuse, is_judged: true }
    }

    /// Returns true if the lock should be given to others before the next node.
    pub(super) fn is_long(&self) -> bool {
        self.progress.work >= MAX_WORK
    }

    /// Ends the call for now. The pod is assumed on the nodes that are allowed so far: other calls come in between.
    pub(super) fn pause(self) -> FilterProgress {
        let Self { reservation, cache, now, pod, progress, .. } = self;
        if reservation.policy.reservation.mode != ReservationMode::Off {
            // Also if it is on no node any more: the pods that were refused for its sake may go.
            if reservation.assumed.assume(pod.into_allowed(), progress.allowed_nodes.clone(), now) {
                reservation.assumed_pod_forgotten(cache, now);
            }
        }
        progress
    }

    fn check_node(&mut self, id: NodeId) -> Option<FilterReason> {
        self.progress.work += 1;
        let row = &self.reservation.nodes[id];
        if row.has_hold_or_gate() {
            self.progress.work +=
                row.holds.len() * if self.pod.asks_ports() { PORTS_WORK } else { HOLD_WORK };
            let has_closed_gate = row.gates.iter().any(|gate| self.waits_for_gate(gate));
            if let Some(by_assumed) = self.takes_reserved(id) {
                if by_assumed {
                    self.reservation.last_refused_for_assumed = Some(self.now);
                }
                return Some(FilterReason::Reserved);
            }
            if has_closed_gate && self.pod.daemon_set_on(id).is_none() {
                return Some(FilterReason::DaemonPodNotReady);
            }
        }
        (self.is_awaited(id) || self.view_is_stale(id)).then_some(FilterReason::StaleCache)
    }

    /// Returns true if pods wait at this door for a gate.
    pub(super) fn waits_for_gate(&self, gate: &Gate) -> bool {
        let bind_timeout = self.reservation.policy.readiness_gates.bind_timeout;
        gate.is_closed
            && match self.door {
                Door::Filter => true,
                Door::Bind => !gate.is_over_for_bindings(bind_timeout),
            }
    }

    /// Returns true if a daemon pod is for a node whose Node the cache lacks, until this has lasted for the time of
    /// [`NodeFreshness::refuses`]. The scheduler and the DaemonSet controller have seen the Node, so the watch of nodes is behind
    /// the watch of pods.
    fn is_awaited(&mut self, id: NodeId) -> bool {
        let row = &mut self.reservation.nodes[id];
        // Nearly every call returns here, without another lookup.
        if row.highest_desired_priority.is_some() || self.pod.daemon_set_on(id).is_some() {
            return false;
        }
        let node = self.cache.node_by_id(id);
        if node.node.is_some() {
            return false;
        }
        let daemon_sets = &self.reservation.daemon_sets;
        let concerns = |pod: &PodInfo| {
            let daemon_set = pod.daemon.as_ref().and_then(|daemon| daemon.daemon_set);
            let row = daemon_set.and_then(|id| daemon_sets.get(id));
            row.is_some_and(|row| row.may_hold)
                && pod.node.is_none()
                && pod.is_unfinished()
                && pod.priority >= self.pod.priority
        };
        if !node.daemon_pods.iter().any(|pod| concerns(self.cache.pod_by_id(*pod))) {
            return false;
        }
        if row.freshness == NodeFreshness::Fresh {
            row.freshness = NodeFreshness::Stale(self.now);
        }
        row.freshness.refuses(self.now)
    }

    /// Returns `None` if the pod leaves the room and the ports that holds reserve, `Some(false)` if it would take some of them, and
    /// `Some(true)` if it would only because of the assumed pods.
    pub(super) fn takes_reserved(&self, id: NodeId) -> Option<bool> {
        let Self { pod, reservation, cache, .. } = self;
        let mut remaining = pod.remaining_beside_holds(reservation, cache, id)?;
        if remaining.lacks_room_for(pod) {
            return Some(false);
        }
        self.subtract_assumed(&mut remaining, id);
        remaining.lacks_room_for(pod).then_some(true)
    }

    /// Returns the resources that a node has left for the pod beside the holds and the assumed pods; `None` if no hold counts
    /// against the pod.
    pub(super) fn remaining(&self, id: NodeId) -> Option<Remaining> {
        let mut remaining = self.pod.remaining_beside_holds(self.reservation, self.cache, id)?;
        self.subtract_assumed(&mut remaining, id);
        Some(remaining)
    }

    fn subtract_assumed(&self, remaining: &mut Remaining, id: NodeId) {
        let Self { pod, reservation, cache, .. } = self;
        let has_hold_for = |daemon_set| {
            let mut holds = reservation.nodes[id].holds.iter();
            holds.any(|hold| hold.pod.daemon_set == daemon_set && pod.is_held_by(cache, id, hold))
        };
        reservation.assumed.subtract_assumed(&mut remaining.free, id, &pod.uid, has_hold_for);
    }

    /// Returns true if the scheduler offers a node where the pod does not fit by the cache and the assumed pods, until this has
    /// lasted for the time of [`NodeFreshness::refuses`]. A pod has left that the cache still counts, and that may be a daemon pod
    /// whose room must not be given away.
    fn view_is_stale(&mut self, id: NodeId) -> bool {
        let IncomingPod { ref uid, priority, ref requests, .. } = self.pod;
        let row = &mut self.reservation.nodes[id];
        if row.highest_desired_priority.is_none_or(|desired| desired < priority)
            || self.pod.daemon_set_on(id).is_some()
        {
            return false;
        }
        let node = self.cache.node_by_id(id);
        let mut fits = node.allocatable.has_room_beside(&node.requested, requests);
        if fits && let Some(mut taken) = self.reservation.assumed.assumed_only_on(id, uid) {
            taken.add(&node.requested);
            fits = node.allocatable.has_room_beside(&taken, requests);
        }
        let freshness = match row.freshness {
            NodeFreshness::Fresh if fits => return false,
            // No scheduler offers a node that is too small, as it is advertised: somebody has forged the call, or the scheduler does
            // not count a resource of the pod.
            NodeFreshness::Fresh if node.allocatable.lacks(requests).is_some() => return false,
            NodeFreshness::Fresh => NodeFreshness::Stale(self.now),
            // Only a pod that requests as much shows that the cache has caught up: a smaller one would fit anyway.
            _ if fits && requests.lacks(&row.offered).is_none() => NodeFreshness::Fresh,
            _ if fits => return false,
            freshness if freshness.refuses(self.now) => return true,
            NodeFreshness::Stale(_) => NodeFreshness::StaleIgnored(self.now),
            ignored @ NodeFreshness::StaleIgnored(_) => ignored,
        };
        row.freshness = freshness;
        let is_stale = matches!(freshness, NodeFreshness::Stale(_));
        if is_stale {
            row.offered = requests.clone();
        }
        is_stale
    }

    fn record_refusal(&mut self, id: NodeId, reason: FilterReason) {
        self.progress.refused = Some(reason);
        let Self { now, ref pod, cache, door, .. } = *self;
        self.reservation.ticking.insert(id);
        let row = &mut self.reservation.nodes[id];
        row.last_refused = Some(now);
        let mut first = Vec::new();
        match reason {
            FilterReason::Reserved => {
                let mut holds = std::mem::take(&mut row.holds);
                let is_cause = !pod.is_refused_for_proven(self.reservation, cache, id, &holds);
                for hold in holds.iter_mut().filter(|hold| pod.is_held_by(cache, id, hold)) {
                    if hold.has_first_refusal() {
                        first.push(hold.pod.daemon_set);
                    }
                    if !pod.has_failed {
                        continue;
                    }
                    hold.record_refusal(&pod.uid, now);
                    hold.is_cause = is_cause;
                    self.reservation.charge(id, hold, now);
                }
                self.reservation.nodes[id].holds = holds;
            }
            FilterReason::DaemonPodNotReady => {
                for gate in row.gates.iter_mut().filter(|gate| gate.is_closed && pod.has_failed) {
                    gate.record_refusal(&pod.uid, door, now);
                }
            }
            FilterReason::StaleCache => {}
            // Reasons of the pod's own spec, which the caller finds before it calls this.
            FilterReason::NotTarget | FilterReason::NodeSelector | FilterReason::Taint => {}
        }
        self.progress.work += REFRESH_WORK * first.len();
        if !first.is_empty() {
            self.reservation.begin_refusing(cache, id, &first, now);
        }
    }
}
