//! The refresh of dirty nodes: holds are computed once after an event, so that a call of the scheduler only reads them.

use std::time::Instant;

use super::Reservation;
use super::cluster_write::ClusterWrite;
use super::feasibility::{BoundPod, Feasibility, feasibility};
use super::hold::{EndReason, Hold, HoldState};
use super::missing::{MissingDaemonPod, has_landed};
use crate::cache::{Cache, DaemonSetId, NodeId};

impl Reservation {
    /// Refreshes all dirty nodes. Where a lock is held and many may be dirty, call [`Self::refresh_some`] instead.
    pub fn refresh_all(&mut self, cache: &Cache, now: Instant) {
        while self.refresh_some(cache, usize::MAX, now) {}
    }

    /// Refreshes at most `limit` dirty nodes. Returns true if any are left, so that a caller can release its lock in between.
    pub fn refresh_some(&mut self, cache: &Cache, limit: usize, now: Instant) -> bool {
        for _ in 0..limit {
            match self.dirty.pop() {
                Some(id) => self.refresh(cache, id, now),
                None => return false,
            }
        }
        !self.dirty.is_empty()
    }

    /// Refreshes a node if it is dirty: its missing pods, holds, gates and place in the queue of nominations.
    pub(super) fn refresh(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        // The node may have been forgotten since it was marked, and its id given to another.
        if !std::mem::replace(&mut self.nodes[id].is_dirty, false) || cache.node_if_known(id).is_none() {
            return;
        }
        let may_hold = |daemon_set: &&DaemonSetId| self.daemon_sets[**daemon_set].may_hold;
        let holding = self.nodes[id].desired.iter().filter(may_hold);
        let priorities = holding.filter_map(|id| Some(cache.daemon_set_if_known(*id)?.demand.priority));
        self.nodes[id].highest_desired_priority = priorities.max();
        self.refresh_holds(cache, id, now);
        self.refresh_gates(cache, id, now);
        self.enqueue_nominations(cache, id, now);
        self.nodes[id].update_has_hold_or_gate();
    }

    fn refresh_holds(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        let mut missing = self.missing_on(cache, id);
        // The most important first. The order of equal priorities must be the same in each refresh.
        missing.sort_by(|a, b| {
            let uid = |daemon: &MissingDaemonPod| &self.daemon_sets[daemon.daemon_set].subject.uid;
            b.priority.cmp(&a.priority).then_with(|| uid(a).cmp(uid(b)))
        });
        if missing.is_empty() && self.nodes[id].holds.is_empty() {
            return;
        }
        let mut holds = std::mem::take(&mut self.nodes[id].holds);
        let mut kept = Vec::with_capacity(missing.len());
        let mut reserves_less = false;
        for pod in missing {
            let info = cache.daemon_set_by_id(pod.daemon_set);
            let at = holds.iter().position(|hold| hold.pod.daemon_set == pod.daemon_set);
            let Some(at) = at else {
                kept.push(Hold::new(pod, info.uid.clone(), info.template_version));
                continue;
            };
            let mut hold = holds.swap_remove(at);
            if hold.template_version != info.template_version {
                hold.reset_for_template(info.template_version, now);
            }
            reserves_less |= hold.state == HoldState::Held && pod.reserves_less_than(&hold.pod);
            hold.pod = pod;
            kept.push(hold);
        }
        self.decide_holds(cache, id, &mut kept, now);
        // The other holds are for pods that are not missing any more: landed, or not desired.
        for mut hold in holds {
            let landed = has_landed(cache, id, hold.pod.daemon_set);
            if hold.state == HoldState::Held {
                let reason = if landed { EndReason::Landed } else { EndReason::NotWanted };
                self.end_hold(cache, id, &mut hold, reason, now);
            }
            if !landed && !hold.is_blank() {
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

    /// Sets the state of the holds of missing pods: `Held` if the pod can fit, else `CannotFit`. Expired holds stay so, and take no
    /// room from others.
    fn decide_holds(&mut self, cache: &Cache, id: NodeId, holds: &mut [Hold], now: Instant) {
        let counted = holds.iter().filter(|hold| hold.state != HoldState::Expired).map(|hold| &hold.pod);
        let mut feasibility = feasibility_on(cache, id, &counted.collect::<Vec<_>>()).into_iter();
        for hold in holds {
            if hold.state == HoldState::Expired {
                hold.set_fits_now(true, now);
                continue;
            }
            let Some(feasibility) = feasibility.next() else { return };
            hold.set_fits_now(feasibility.now, now);
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

    /// Handles that a hold has refused a pod for the first time, after which more such pods are expected.
    pub(super) fn begin_refusing(
        &mut self,
        cache: &Cache,
        id: NodeId,
        daemon_set: DaemonSetId,
        now: Instant,
    ) {
        self.push_about(cache, id, daemon_set, true, ClusterWrite::HoldingRoom);
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
            EndReason::NotWanted | EndReason::CannotFit | EndReason::HoldTimeout | EndReason::WaitTimeout => {
                self.wake(cache, id);
            }
        }
    }
}

/// Returns the feasibility of each of `missing`, which are in order, the most important first.
fn feasibility_on(cache: &Cache, id: NodeId, missing: &[&MissingDaemonPod]) -> Vec<Feasibility> {
    let state = cache.node_by_id(id);
    let bound = state.pods.iter().map(|pod| cache.pod_by_id(*pod)).map(|pod| BoundPod {
        priority: pod.priority,
        requests: &pod.requests,
        host_ports: &pod.host_ports,
        is_terminating: pod.is_terminating,
    });
    feasibility(&state.allocatable, &bound.collect::<Vec<_>>(), missing)
}
