//! What ends because time has passed, and not because of an event.

use std::time::{Duration, Instant};

use super::cluster_write::ClusterWrite;
use super::gate::Gate;
use super::hold::{Hold, HoldState};
use super::node_reservation::{NodeFreshness, NodeReservation};
use super::{EARLY_RETRY_WINDOW, Reservation};
use crate::cache::freshness::CacheFreshness;
use crate::cache::{Cache, NodeId};

/// For how long a pod that was refused because of assumed pods may have slept when the last of those is forgotten.
const ASSUMED_REFUSAL_WINDOW: Duration = Duration::from_secs(6);
/// For how long a refused pod is remembered that nobody has told us of.
const UNKNOWN_POD: Duration = Duration::from_secs(30);

impl Reservation {
    /// Time passes: holds, gates and charges whose time is up end, and pods that sleep on are woken.
    pub fn tick(&mut self, cache: &Cache, now: Instant) {
        let policy = self.policy.reservation.clone();
        let is_running = |row: &NodeReservation| {
            row.holds.iter().any(Hold::is_running) || row.gates.iter().any(Gate::is_running)
        };
        let running = self.nodes.iter().enumerate().filter(|(_, row)| is_running(row));
        let running: Vec<NodeId> = running.map(|(id, _)| id).collect();
        for id in running {
            // What has ended by itself must not be said to have run out of time.
            self.refresh(cache, id, now);
            let mut holds = std::mem::take(&mut self.nodes[id].holds);
            for hold in &mut holds {
                let waits = |uid: &str| cache.is_unbound(uid);
                let ended = hold.tick(now, policy.hold_timeout, policy.wait_timeout, waits);
                if let Some(reason) = ended {
                    hold.transition_to(HoldState::Expired, now);
                    self.end_hold(cache, id, hold, reason, now);
                    self.mark_dirty(id);
                }
            }
            self.nodes[id].holds = holds;
            self.tick_gates(cache, id, now);
        }
        self.give_up_on_stale_nodes(cache, now);
        if self.stale_refusals.expire(now) {
            self.wake_any(cache);
        }
        if self.assumed.expire(now) {
            self.assumed_pod_forgotten(cache, now);
        }
        self.forget_waiting(cache, now);
        self.refresh_all(cache, now);
    }

    /// Takes in the freshness, on each tick and as soon as a required watch fails. Pods that were refused are woken when no event
    /// is missing any more.
    pub fn observe_freshness(&mut self, cache: &Cache, freshness: CacheFreshness) {
        self.freshness = freshness;
        if self.stale_refusals.observe(freshness) {
            self.wake_any(cache);
        }
    }

    /// Lets pods onto nodes again of which our view has been behind for too long.
    fn give_up_on_stale_nodes(&mut self, cache: &Cache, now: Instant) {
        let mut any = false;
        for row in self.nodes.iter_mut().filter(|row| row.freshness.is_over(now)) {
            row.freshness = NodeFreshness::StaleIgnored;
            any = true;
        }
        // Not by the node itself: we may not have seen it yet.
        if any {
            self.wake_any(cache);
        }
    }

    fn tick_gates(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        let timeout = self.policy.reservation.hold_timeout;
        let mut gates = std::mem::take(&mut self.nodes[id].gates);
        for gate in &mut gates {
            if gate.tick(now, timeout, |uid| cache.is_unbound(uid)) {
                if let Some(node) = cache.node_if_known(id).and_then(|state| state.node.as_ref()) {
                    let subject = self.hold_subject(node, gate.daemon_set, true);
                    self.writes.push(ClusterWrite::GateExpired(subject));
                }
                self.wake(cache, id);
                self.mark_dirty(id);
            }
        }
        self.nodes[id].gates = gates;
    }

    /// A pod is not assumed any more: those that were refused for it a moment ago may be tried again.
    pub(super) fn assumed_pod_forgotten(&mut self, cache: &Cache, now: Instant) {
        let window = EARLY_RETRY_WINDOW.max(ASSUMED_REFUSAL_WINDOW);
        let recently = |at: Instant| now.saturating_duration_since(at) < window;
        if self.last_refused_for_assumed.is_some_and(recently) && !self.waiting.is_empty() {
            self.wake_any(cache);
            if self.assumed.is_empty() {
                self.last_refused_for_assumed = None;
            }
        }
    }

    /// Forgets pods that were refused and that nobody has told us of since: they are gone, or never were.
    fn forget_waiting(&mut self, cache: &Cache, now: Instant) {
        // The watch of pods may have missed their end; they are woken when the cache is fresh again.
        if self.freshness.lacks_events() {
            return;
        }
        let is_known = |uid: &str| cache.pod_id(uid).is_some();
        self.waiting.retain(|uid, refused_at| {
            is_known(uid) || now.saturating_duration_since(*refused_at) < UNKNOWN_POD
        });
    }
}
