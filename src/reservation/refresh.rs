//! The refresh of dirty nodes: holds are computed once after an event, so that a call of the scheduler only reads them.

use std::time::Instant;

use super::Reservation;
use super::cluster_write::ClusterWrite;
use super::feasibility::{BoundPod, Feasibility, feasibility};
use super::hold::{EndReason, Hold, HoldState};
use super::hold_basis::{HoldBasis, Predecessor};
use super::missing::{MissingDaemonPod, NodeInventory, has_landed};
use super::packing::PackingOrder;
use crate::api::pod::SYSTEM_CRITICAL_PRIORITY;
use crate::cache::{Cache, DaemonSetId, NodeId};

impl Reservation {
    /// Refreshes all dirty nodes. Where a lock is held and many may be dirty, call [`Self::refresh_some`] instead.
    pub fn refresh_all(&mut self, cache: &Cache, now: Instant) {
        while self.refresh_some(cache, usize::MAX, now) {}
    }

    /// Refreshes at most `limit` dirty nodes, fewer of those with many DaemonSets. Returns true if any are left, so that a caller
    /// can release its lock in between.
    pub fn refresh_some(&mut self, cache: &Cache, limit: usize, now: Instant) -> bool {
        // It takes as long as a batch. Dirty nodes do not wait until all is placed.
        let mut done = if self.continue_placing(cache, now) { limit / 2 } else { 0 };
        while done < limit {
            let Some(id) = self.dirty.pop() else { return !self.placing.is_empty() };
            done += self.weight(id);
            self.refresh(cache, id, now);
        }
        !self.dirty.is_empty() || !self.placing.is_empty()
    }

    /// Returns true if no more than `limit` nodes wait for a refresh, fewer of those with many DaemonSets.
    pub fn is_nearly_refreshed(&self, limit: usize) -> bool {
        self.placing.is_empty()
            && self.dirty.len() <= limit
            && self.dirty.iter().map(|id| self.weight(*id)).sum::<usize>() <= limit
    }

    /// Returns the work of a node's refresh, in refreshes of a node with a few DaemonSets.
    pub(super) fn weight(&self, id: NodeId) -> usize {
        1 + self.nodes[id].desired.len() / 16
    }

    /// Refreshes a node if it is dirty.
    pub(super) fn refresh(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        // The node may have been forgotten since it was marked, and its id given to another.
        if !std::mem::replace(&mut self.nodes[id].is_dirty, false) || cache.node_if_known(id).is_none() {
            return;
        }
        let may_hold = |daemon_set: &&DaemonSetId| self.daemon_sets[**daemon_set].may_hold;
        let holding = self.nodes[id].desired.iter().filter(may_hold);
        let known = holding.filter_map(|id| cache.daemon_set_if_known(*id));
        let priorities = known.filter(|info| info.may_be_admitted()).map(|info| info.demand.priority);
        self.nodes[id].highest_desired_priority = priorities.max();
        self.refresh_holds(cache, id, now);
        self.count_unborn(id);
        self.refresh_gates(cache, id, now);
        self.enqueue_nominations(cache, id, now);
        self.nodes[id].update_counts();
    }

    fn refresh_holds(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        let NodeInventory { mut missing, landed, predecessors, beyond_limit } = self.inventory_of(cache, id);
        self.nodes[id].beyond_limit = beyond_limit;
        let landed_before = std::mem::replace(&mut self.nodes[id].landed, landed);
        if missing.is_empty() && self.nodes[id].holds.is_empty() {
            return;
        }
        missing.sort_unstable_by_key(|pod| {
            PackingOrder::of_daemon(pod.priority(), cache.daemon_set_by_id(pod.daemon_set))
        });
        let mut holds = std::mem::take(&mut self.nodes[id].holds);
        let mut kept = Vec::with_capacity(missing.len());
        let mut reserves_less = false;
        for pod in missing {
            let daemon_set = pod.daemon_set;
            let at = holds.iter().position(|hold| hold.pod.daemon_set == daemon_set);
            let mut hold = match at {
                Some(at) => {
                    let mut hold = holds.swap_remove(at);
                    reserves_less |= hold.state == HoldState::Held && pod.reserves_less_than(&hold.pod);
                    hold.pod = pod;
                    hold
                }
                None => {
                    let mut hold = Hold::new(pod, cache.daemon_set_by_id(daemon_set).uid.clone());
                    if landed_before.contains(&daemon_set) {
                        hold.predecessor = Predecessor::Present;
                    }
                    hold
                }
            };
            hold.see_predecessor(predecessors.contains(&daemon_set), now);
            kept.push(hold);
        }
        self.check_bases(cache, id, &mut kept, now);
        self.decide_holds(cache, id, &mut kept, now);
        // The other holds are for pods that are not missing any more: landed, or not desired.
        for mut hold in holds {
            let landed = has_landed(cache, id, hold.pod.daemon_set);
            if hold.state == HoldState::Held {
                let reason = if landed { EndReason::Landed } else { EndReason::NotWanted };
                self.end_hold(cache, id, &mut hold, reason, now);
            }
            if landed {
                self.refund(&mut hold);
            } else if !hold.is_blank() {
                if hold.state != HoldState::Expired {
                    hold.transition_to(HoldState::NotMissing, now);
                }
                hold.pod.pending = None;
                kept.push(hold);
            }
        }
        self.nodes[id].holds = kept;
        if reserves_less {
            self.wake(cache, id);
        }
    }

    /// Updates the basis of the holds of missing pods. A hold without one ends; an expired hold stays expired.
    fn check_bases(&mut self, cache: &Cache, id: NodeId, holds: &mut [Hold], now: Instant) {
        let mut recheck_at: Option<Instant> = None;
        let mut unborn = Vec::new();
        for hold in holds.iter_mut() {
            let check = self.check_basis(cache, id, hold, &unborn, now);
            hold.basis = check.basis.ok();
            if hold.basis.is_some_and(HoldBasis::is_unborn) {
                unborn.push(hold.pod.daemon_set);
            }
            recheck_at = recheck_at.into_iter().chain(check.recheck_at).min();
            match check.basis {
                Ok(_) => {
                    if hold.state == HoldState::NoBasis {
                        hold.transition_to(HoldState::NotMissing, now);
                    }
                }
                Err(reason) => {
                    if reason == EndReason::NotCreated {
                        self.lapsed.insert(hold.pod.daemon_set);
                    }
                    if hold.state == HoldState::Held {
                        self.end_hold(cache, id, hold, reason, now);
                    }
                    if hold.state != HoldState::Expired {
                        hold.transition_to(HoldState::NoBasis, now);
                    }
                }
            }
        }
        self.nodes[id].recheck_at = recheck_at;
    }

    /// Charges the present second for a hold if a pod waits for it, and marks the node if the hold has to end for that.
    pub(super) fn charge(&mut self, id: NodeId, hold: &mut Hold, now: Instant) {
        if !hold.is_charged() {
            return;
        }
        let namespace = &self.daemon_sets[hold.pod.daemon_set].reference.namespace;
        if self.wait_budgets.charge(namespace, &mut hold.charged, now) {
            self.mark_dirty(id);
        }
    }

    /// Gives back the time that was charged for a hold.
    pub(super) fn refund(&mut self, hold: &mut Hold) {
        if !hold.charged.is_empty() {
            let namespace = &self.daemon_sets[hold.pod.daemon_set].reference.namespace;
            self.wait_budgets.refund(namespace, &mut hold.charged);
        }
    }

    /// Sets the state of the holds of missing pods: `Held` if the pod can fit, unless the time is up or the hold has no basis. Such
    /// holds take no room from others.
    fn decide_holds(&mut self, cache: &Cache, id: NodeId, holds: &mut [Hold], now: Instant) {
        let is_counted = |hold: &&Hold| !matches!(hold.state, HoldState::Expired | HoldState::NoBasis);
        let counted = holds.iter().filter(is_counted).map(|hold| &hold.pod);
        let mut feasibility = feasibility_on(cache, id, &counted.collect::<Vec<_>>()).into_iter();
        for hold in holds {
            if !is_counted(&&*hold) {
                hold.is_node_too_small = false;
                hold.set_fits_now(true, now);
                continue;
            }
            let Some(feasibility) = feasibility.next() else { return };
            hold.set_fits_now(feasibility.now, now);
            let was_too_small =
                std::mem::replace(&mut hold.is_node_too_small, feasibility.too_small.is_some());
            if let Some(shortage) = feasibility.too_small.filter(|_| !was_too_small) {
                self.push_about(cache, id, hold.pod.daemon_set, true, |subject| {
                    ClusterWrite::NodeTooSmall(subject, shortage)
                });
            }
            if feasibility.eventually {
                hold.transition_to(HoldState::Held, now);
            } else {
                if hold.state == HoldState::Held {
                    self.end_hold(cache, id, hold, EndReason::CannotFit, now);
                }
                hold.transition_to(HoldState::CannotFit, now);
            }
        }
    }

    /// Handles that the holds of some DaemonSets have refused a pod for the first time, after which more such pods are expected.
    pub(super) fn begin_refusing(
        &mut self,
        cache: &Cache,
        id: NodeId,
        daemon_sets: &[DaemonSetId],
        now: Instant,
    ) {
        for daemon_set in daemon_sets {
            self.push_about(cache, id, *daemon_set, true, ClusterWrite::HoldingRoom);
        }
        self.enqueue_nominations(cache, id, now);
    }

    /// Handles the end of a hold that was `Held`, and wakes the pods that it refused. The caller changes the state.
    pub(super) fn end_hold(
        &mut self,
        cache: &Cache,
        id: NodeId,
        hold: &mut Hold,
        reason: EndReason,
        now: Instant,
    ) {
        let has_refused = std::mem::take(&mut hold.has_refused);
        self.push_about(cache, id, hold.pod.daemon_set, has_refused, |subject| {
            ClusterWrite::HoldEnded(subject, reason)
        });
        match reason {
            // The binding is an event that makes the scheduler try the refused pods, unless it did so before the watch brought the
            // event.
            EndReason::Landed => self.room_freed(cache, id, now),
            // No room is freed.
            EndReason::NodeGone => {}
            // The scheduler does not watch DaemonSets and namespaces, and time is no event.
            EndReason::NotWanted
            | EndReason::CannotFit
            | EndReason::HoldTimeout
            | EndReason::WaitTimeout
            | EndReason::NotAdmitted
            | EndReason::NotCreated
            | EndReason::NotSchedulable
            | EndReason::BudgetSpent => self.wake(cache, id),
        }
    }
}

/// Returns the feasibility of each of `missing`, which are in order, the most important first.
fn feasibility_on(cache: &Cache, id: NodeId, missing: &[&MissingDaemonPod]) -> Vec<Feasibility> {
    let state = cache.node_by_id(id);
    let bound = state.pods.iter().map(|pod| cache.pod_by_id(*pod)).map(|pod| {
        let daemon_set = pod.daemon.as_ref().and_then(|daemon| daemon.daemon_set);
        let is_exempt = pod.is_opted_out || pod.priority >= SYSTEM_CRITICAL_PRIORITY;
        let order = match daemon_set {
            _ if is_exempt => PackingOrder::of_exempt(pod.priority),
            Some(id) => PackingOrder::of_daemon(pod.priority, cache.daemon_set_by_id(id)),
            None => PackingOrder::of_ordinary(pod.priority),
        };
        BoundPod {
            order,
            is_daemon_pod: daemon_set.is_some(),
            requests: &pod.requests,
            host_ports: &pod.host_ports,
            is_terminating: pod.is_terminating,
        }
    });
    let order = |pod: &MissingDaemonPod| {
        PackingOrder::of_daemon(pod.priority(), cache.daemon_set_by_id(pod.daemon_set))
    };
    let in_order: Vec<_> = missing.iter().map(|pod| (order(pod), *pod)).collect();
    feasibility(&state.allocatable, &bound.collect::<Vec<_>>(), &in_order)
}
