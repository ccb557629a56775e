//! What ends because time has passed, and not because of an event.

use std::time::{Duration, Instant};

use super::freshness::CacheFreshness;
use super::node_info::NodeFreshness;
use super::pods::EARLY_RETRY;
use super::{Cache, NodeId};
use crate::reservation::cluster_write::ClusterWrite;
use crate::reservation::gate::Gate;
use crate::reservation::hold::{Hold, HoldState};

/// For how long a pod that was refused because of charges may have slept when the last of them ends.
const CHARGED: Duration = Duration::from_secs(6);
/// For how long a refused pod is remembered that nobody has told us of.
const UNKNOWN_POD: Duration = Duration::from_secs(30);

impl Cache {
    /// Time passes: holds, gates and charges whose time is up end, and pods that sleep on are woken.
    pub fn tick(&mut self, now: Instant) {
        let reservation = self.policy.reservation.clone();
        let running: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| {
                node.holds.iter().any(Hold::is_running) || node.gates.iter().any(Gate::is_running)
            })
            .map(|(id, _)| id)
            .collect();
        for id in running {
            // What has ended by itself must not be said to have run out of time.
            self.refresh(id, now);
            let mut holds = std::mem::take(&mut self.nodes[id].holds);
            for hold in &mut holds {
                let waits = |uid: &str| self.is_waiting(uid);
                let ended = hold.tick(now, reservation.hold_timeout, reservation.wait_timeout, waits);
                if let Some(reason) = ended {
                    hold.enter(HoldState::Expired, now);
                    self.end_hold(id, hold, reason, now);
                    self.mark_dirty(id);
                }
            }
            self.nodes[id].holds = holds;
            self.tick_gates(id, now);
        }
        self.give_up_on_stale_views(now);
        if self.stale_refusals.expire(now) {
            self.wake_any();
        }
        if self.ledger.expire(now) {
            self.charge_ended(now);
        }
        self.forget_waiting(now);
        self.refresh_all(now);
    }

    /// Takes in the freshness, on each tick and as soon as a required watch fails. Pods that were refused are woken when no event
    /// is missing any more.
    pub fn observe_freshness(&mut self, freshness: CacheFreshness) {
        self.freshness = freshness;
        if self.stale_refusals.observe(freshness) {
            self.wake_any();
        }
    }

    /// Lets pods onto nodes again of which our view has been behind for too long.
    fn give_up_on_stale_views(&mut self, now: Instant) {
        let over = self.nodes.iter().filter(|(_, node)| node.staleness.is_over(now));
        let over: Vec<NodeId> = over.map(|(id, _)| id).collect();
        for id in &over {
            self.nodes[*id].staleness = NodeFreshness::StaleIgnored;
        }
        // Not by the node itself: we may not have seen it yet.
        if !over.is_empty() {
            self.wake_any();
        }
    }

    fn tick_gates(&mut self, id: NodeId, now: Instant) {
        let timeout = self.policy.reservation.hold_timeout;
        let mut gates = std::mem::take(&mut self.nodes[id].gates);
        for gate in &mut gates {
            if gate.tick(now, timeout, |uid| self.is_waiting(uid)) {
                let hold_ref = self.hold_ref(id, gate.daemon_set, true);
                self.effects.push(ClusterWrite::GateExpired(hold_ref));
                self.wake(id);
                self.mark_dirty(id);
            }
        }
        self.nodes[id].gates = gates;
    }

    /// A charge is over: whoever was refused for it a moment ago may be tried again.
    pub(crate) fn charge_ended(&mut self, now: Instant) {
        let recently = |at: Instant| now.saturating_duration_since(at) < EARLY_RETRY.max(CHARGED);
        if self.last_refused_by_charge.is_some_and(recently) && !self.waiting.is_empty() {
            self.wake_any();
            if self.ledger.is_empty() {
                self.last_refused_by_charge = None;
            }
        }
    }

    /// Forgets pods that were refused and that nobody has told us of since: they are gone, or never were.
    fn forget_waiting(&mut self, now: Instant) {
        // The watch of pods may have missed their end; they are woken when the cache is fresh again.
        if self.freshness.lacks_events() {
            return;
        }
        let pods = &self.pod_ids;
        self.waiting.retain(|uid, refused_at| {
            pods.contains_key(uid) || now.saturating_duration_since(*refused_at) < UNKNOWN_POD
        });
    }
}
