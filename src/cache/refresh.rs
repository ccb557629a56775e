//! What has changed on a node is worked out once, between the event and the next call of the scheduler.

use std::time::Instant;

use super::{Cache, DaemonSetId, NodeId, PodId};
use crate::reservation::cluster_write::ClusterWrite;
use crate::reservation::feasibility::{BoundPod, Feasibility, Missing, outlooks};
use crate::reservation::hold::{EndReason, Hold, HoldState};
use crate::scheduling::host_ports::HostPort;
use crate::scheduling::resources::Resources;

/// A daemon pod that a node lacks.
pub(super) struct MissingPod {
    pub(super) daemon_set: DaemonSetId,
    pub(super) pending: Option<PodId>,
    pub(super) priority: i32,
    pub(super) need: Resources,
    pub(super) reserve: Resources,
    host_ports: Box<[HostPort]>,
}

impl Cache {
    /// Works out every node that has changed.
    pub fn refresh_all(&mut self, now: Instant) {
        while self.refresh_some(usize::MAX, now) {}
    }

    /// Works out at most `limit` nodes that have changed; whether any are left. Callers that hold a lock let go of it between.
    pub fn refresh_some(&mut self, limit: usize, now: Instant) -> bool {
        for _ in 0..limit {
            match self.dirty.pop() {
                Some(id) => self.refresh(id, now),
                None => return false,
            }
        }
        !self.dirty.is_empty()
    }

    /// Works out one node, if it has changed.
    pub(crate) fn refresh(&mut self, id: NodeId, now: Instant) {
        // The name may have been forgotten since it was marked, and its id given away.
        let Some(state) = self.nodes.get_mut(id) else { return };
        if !std::mem::replace(&mut state.is_dirty, false) {
            return;
        }
        let wanting = self.nodes[id].wanted.iter().map(|id| &self.daemon_sets[*id]);
        let priorities = wanting.filter(|info| info.may_hold).map(|info| info.weight.priority);
        self.nodes[id].highest_wanted_priority = priorities.max();
        self.refresh_holds(id, now);
        self.refresh_gates(id, now);
        self.enqueue_nominations(id, now);
        let state = &mut self.nodes[id];
        state.is_kept = state.holds.iter().any(|hold| hold.state == HoldState::Held)
            || state.gates.iter().any(|gate| gate.is_closed);
    }

    fn refresh_holds(&mut self, id: NodeId, now: Instant) {
        let mut missing = self.missing_on(id);
        // The most important first; among equals the order must not change from one time to the next.
        missing.sort_by(|a, b| {
            let uid = |daemon: &MissingPod| self.daemon_sets[daemon.daemon_set].uid.clone();
            b.priority.cmp(&a.priority).then_with(|| uid(a).cmp(&uid(b)))
        });
        if missing.is_empty() && self.nodes[id].holds.is_empty() {
            return;
        }
        let mut holds = std::mem::take(&mut self.nodes[id].holds);
        let mut kept = Vec::with_capacity(missing.len());
        let mut is_loosened = false;
        for daemon in missing {
            let info = &self.daemon_sets[daemon.daemon_set];
            let at = holds.iter().position(|hold| hold.daemon_set == daemon.daemon_set);
            let mut hold = match at {
                Some(at) => holds.swap_remove(at),
                None => Hold::new(daemon.daemon_set, info.uid.clone(), info.template_version),
            };
            if hold.template_version != info.template_version {
                hold.rearm(info.template_version, now);
            }
            is_loosened |= hold.is_loosened_by(daemon.priority, &daemon.reserve, &daemon.host_ports);
            hold.priority = daemon.priority;
            hold.need = daemon.need;
            hold.reserve = daemon.reserve;
            hold.host_ports = daemon.host_ports;
            hold.pending = daemon.pending;
            kept.push(hold);
        }
        let outlooks = self.outlooks_on(id, &kept);
        for (hold, outlook) in kept.iter_mut().zip(outlooks) {
            hold.set_suffices(outlook.suffices, now);
            if hold.state == HoldState::Expired {
                continue;
            }
            if outlook.can_fit {
                hold.enter(HoldState::Held, now);
            } else {
                if hold.state == HoldState::Held {
                    self.end_hold(id, hold, EndReason::CannotFit, now);
                }
                hold.enter(HoldState::CannotFit, now);
            }
        }
        // What is left is not missing any more: landed, or not wanted.
        for mut hold in holds {
            let landed = self.has_landed(id, hold.daemon_set);
            if hold.state == HoldState::Held {
                let reason = if landed { EndReason::Landed } else { EndReason::NotWanted };
                self.end_hold(id, &mut hold, reason, now);
            }
            if !landed && !hold.is_blank() {
                if hold.state != HoldState::Expired {
                    hold.enter(HoldState::NotMissing, now);
                }
                hold.pending = None;
                kept.push(hold);
            }
        }
        self.nodes[id].holds = kept;
        if is_loosened {
            self.wake(id);
        }
    }

    /// The daemon pods that a node lacks: wanted, and none of the DaemonSet is bound that is neither terminal nor terminating;
    /// or, where updates surge, the new one is not bound yet.
    pub(super) fn missing_on(&self, id: NodeId) -> Vec<MissingPod> {
        let state = &self.nodes[id];
        let holding = state.wanted.iter().filter(|daemon_set| self.daemon_sets[**daemon_set].may_hold);
        holding.filter_map(|daemon_set| self.missing_pod(id, *daemon_set)).collect()
    }

    fn missing_pod(&self, id: NodeId, daemon_set: DaemonSetId) -> Option<MissingPod> {
        let info = &self.daemon_sets[daemon_set];
        let mut has_bound = false;
        let mut pending: Option<PodId> = None;
        let mut still_held = Resources::default();
        for pod_id in &self.nodes[id].daemon_pods {
            let pod = &self.pods[*pod_id];
            let is_own = pod.is_of(daemon_set);
            if !is_own || !pod.is_live() {
                continue;
            }
            match (pod.node.is_some(), pod.is_terminating) {
                (true, true) => still_held.add(&pod.requests),
                (true, false) => has_bound = true,
                (false, true) => {}
                (false, false) => {
                    let is_newer = pending.is_none_or(|other| self.age_key(other) < self.age_key(*pod_id));
                    pending = if is_newer { Some(*pod_id) } else { pending };
                }
            }
        }
        if has_bound && !(info.uses_surge && pending.is_some()) {
            return None;
        }
        let (priority, need, host_ports) = match pending {
            Some(pod) => {
                let pod = &self.pods[pod];
                (pod.priority, pod.requests.clone(), pod.host_ports.clone())
            }
            None => (info.weight.priority, info.weight.requests.clone(), info.weight.host_ports.clone()),
        };
        let reserve = need.saturating_difference(&still_held);
        Some(MissingPod { daemon_set, pending, priority, need, reserve, host_ports })
    }

    /// What can become of `holds`, which are in order; those whose time is up take nothing from the others.
    fn outlooks_on(&self, id: NodeId, holds: &[Hold]) -> Vec<Feasibility> {
        let state = &self.nodes[id];
        let bound: Vec<BoundPod<'_>> = state
            .pods
            .iter()
            .map(|pod| &self.pods[*pod])
            .map(|pod| BoundPod {
                priority: pod.priority,
                requests: &pod.requests,
                host_ports: &pod.host_ports,
                is_terminating: pod.is_terminating,
            })
            .collect();
        let nothing = Resources::default();
        let missing: Vec<Missing<'_>> = holds
            .iter()
            .map(|hold| {
                let counts = hold.state != HoldState::Expired;
                Missing {
                    priority: hold.priority,
                    need: if counts { &hold.need } else { &nothing },
                    reserve: if counts { &hold.reserve } else { &nothing },
                    host_ports: if counts { &hold.host_ports } else { &[] },
                }
            })
            .collect();
        outlooks(&state.allocatable, &bound, &missing)
    }

    fn has_landed(&self, id: NodeId, daemon_set: DaemonSetId) -> bool {
        self.nodes[id]
            .daemon_pods
            .iter()
            .map(|pod| &self.pods[*pod])
            .any(|pod| pod.is_of(daemon_set) && pod.node.is_some() && pod.is_live() && !pod.is_terminating)
    }

    /// Says that a pod was refused for a hold for the first time: from then on others are expected.
    pub(crate) fn begin_refusing(&mut self, id: NodeId, daemon_set: DaemonSetId, now: Instant) {
        let hold_ref = self.hold_ref(id, daemon_set, true);
        self.effects.push(ClusterWrite::HoldingRoom(hold_ref));
        self.enqueue_nominations(id, now);
    }

    /// Says that a hold that was in force is over, and wakes those that it kept off.
    pub(super) fn end_hold(&mut self, id: NodeId, hold: &mut Hold, reason: EndReason, now: Instant) {
        let hold_ref = self.hold_ref(id, hold.daemon_set, std::mem::take(&mut hold.has_refused));
        self.effects.push(ClusterWrite::HoldEnded(hold_ref, reason));
        match reason {
            // This comes with an event of the cluster, which wakes the refused pods unless they were tried before we saw it.
            EndReason::Landed => self.opened(id, now),
            // No room comes free by it.
            EndReason::NodeGone => {}
            // What is no longer wanted may come of a DaemonSet or a namespace, and the scheduler does not look at those.
            EndReason::NotWanted | EndReason::CannotFit | EndReason::HoldTimeout | EndReason::WaitTimeout => {
                self.wake(id)
            }
        }
    }

    pub(super) fn wake(&mut self, id: NodeId) {
        if !self.waiting.is_empty() && self.nodes[id].node.is_some() {
            self.push_wake(id);
        }
    }

    /// Wakes all that wait, by whichever node there is.
    pub(crate) fn wake_any(&mut self) {
        let node = self.nodes.iter().find(|(_, node)| node.node.is_some());
        if let Some(id) = node.map(|(id, _)| id) {
            self.wake(id);
        }
    }

    /// Any change of any node wakes all pods that an extender has refused: one at a time is enough.
    pub(super) fn push_wake(&mut self, id: NodeId) {
        if !self.effects.iter().any(|effect| matches!(effect, ClusterWrite::Wake(_))) {
            self.effects.push(ClusterWrite::Wake(self.nodes[id].name.clone()));
        }
    }

    /// Ends all that is kept on a node and forgets what was spent: the next Node of the name is another.
    pub(super) fn end_holds(&mut self, id: NodeId, reason: EndReason, now: Instant) {
        let holds = std::mem::take(&mut self.nodes[id].holds);
        for mut hold in holds {
            if hold.state == HoldState::Held {
                self.end_hold(id, &mut hold, reason, now);
            }
        }
        self.nodes[id].gates.clear();
        self.enqueue_nominations(id, now);
    }
}
