//! Ends holds, gates and assumed pods when their time is up.

use std::time::{Duration, Instant};

use super::cluster_write::ClusterWrite;
use super::gate::Gate;
use super::hold::{Hold, HoldState};
use super::node_reservation::{NodeFreshness, NodeReservation};
use super::{EARLY_RETRY_WINDOW, Reservation};
use crate::cache::freshness::CacheFreshness;
use crate::cache::{Cache, NodeId};
use crate::scheduling::resources::Resources;

/// The time after a refusal because of assumed pods in which the end of an assumption wakes the refused pods.
const ASSUMED_REFUSAL_WINDOW: Duration = Duration::from_secs(6);
/// The time after which a refused pod that the watch has not brought is forgotten.
const UNKNOWN_POD: Duration = Duration::from_secs(30);

impl Reservation {
    /// Ends holds, gates and assumed pods whose time is up, wakes the pods that they refused, and refreshes all dirty nodes. Call
    /// it a few times a second.
    pub fn tick(&mut self, cache: &Cache, now: Instant) {
        self.begin_tick(cache, now);
        while self.tick_some(cache, usize::MAX, now) {}
        self.refresh_all(cache, now);
    }

    /// Begins a tick: handles all but the assumed pods, the holds and the gates. Call [`Self::tick_some`] after it until it returns
    /// false.
    pub fn begin_tick(&mut self, cache: &Cache, now: Instant) {
        self.recheck_bases(now);
        self.wait_budgets.expire(now);
        self.wait_budgets.allow_for_many(|namespace, limit| cache.bound_daemon_pods(namespace, limit));
        self.give_up_on_stale_nodes(cache, now);
        if self.stale_refusals.expire(now) {
            self.wake_any(cache);
        }
        self.forget_waiting(cache, now);
        self.unknown_bindings.expire(now);
        self.forget_allowed(now);
        self.to_tick.extend(std::mem::take(&mut self.ticking));
    }

    /// Forgets assumed pods whose time is up, then handles the holds and gates of at most `limit` nodes. Returns true if any are
    /// left, so that a caller can release its lock in between.
    pub fn tick_some(&mut self, cache: &Cache, limit: usize, now: Instant) -> bool {
        let expiry = self.assumed.expire(now, |uid| cache.is_unbound(uid) == Some(true));
        if expiry.any {
            self.assumed_pod_forgotten(cache, now);
        }
        if expiry.is_cut {
            return true;
        }
        for _ in 0..limit {
            let Some(id) = self.to_tick.pop() else { return false };
            self.tick_node(cache, id, now);
        }
        !self.to_tick.is_empty()
    }

    fn tick_node(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        // Before the refresh, which may end a hold: pods have waited for it until now.
        let mut holds = std::mem::take(&mut self.nodes[id].holds);
        for hold in &mut holds {
            self.charge(id, hold, now);
        }
        self.nodes[id].holds = holds;
        // A hold that an event has ended must not end for its timeout.
        self.refresh(cache, id, now);
        let (hold_timeout, wait_timeout) =
            (self.policy.reservation.hold_timeout, self.policy.reservation.wait_timeout);
        let mut holds = std::mem::take(&mut self.nodes[id].holds);
        for hold in &mut holds {
            let ended = hold.tick(now, hold_timeout, wait_timeout, |uid| cache.is_unbound(uid));
            if let Some(reason) = ended {
                hold.transition_to(HoldState::Expired, now);
                self.end_hold(cache, id, hold, reason, now);
                self.mark_dirty(id);
            }
        }
        self.nodes[id].holds = holds;
        self.count_unborn(id);
        self.tick_gates(cache, id, now);
        let row = &self.nodes[id];
        if row.holds.iter().any(Hold::is_running) || row.gates.iter().any(Gate::is_running) {
            self.ticking.insert(id);
        }
    }

    /// Marks the nodes where the basis of a hold may have ended with time.
    fn recheck_bases(&mut self, now: Instant) {
        let is_due = |row: &NodeReservation| row.recheck_at.is_some_and(|at| at <= now);
        let due: Vec<NodeId> =
            self.nodes.iter().enumerate().filter(|(_, row)| is_due(row)).map(|(id, _)| id).collect();
        due.into_iter().for_each(|id| self.mark_dirty(id));
        let lag = self.basis_limits.quota_lag;
        self.last_termination.retain(|_, at| now.saturating_duration_since(*at) < lag);
    }

    /// Sets the freshness of the cache. Call it on each tick and as soon as a required watch fails. Wakes the refused pods when no
    /// event is missing any more.
    pub fn observe_freshness(&mut self, cache: &Cache, freshness: CacheFreshness) {
        self.freshness = freshness;
        if self.stale_refusals.observe(freshness) {
            self.wake_any(cache);
        }
    }

    /// Ends the refusals on nodes that have been stale for too long, and a while later lets them be stale again.
    fn give_up_on_stale_nodes(&mut self, cache: &Cache, now: Instant) {
        let mut any = false;
        for row in &mut self.nodes {
            if row.freshness.is_over(now) {
                row.freshness = NodeFreshness::StaleIgnored(now);
                any = true;
            } else if row.freshness.is_forgiven(now) {
                row.freshness = NodeFreshness::Fresh;
                row.offered = Resources::default();
            }
        }
        // The node itself may have no Node yet.
        if any {
            self.wake_any(cache);
        }
    }

    fn tick_gates(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        let timeout = self.policy.reservation.hold_timeout;
        let bind_timeout = self.policy.readiness_gates.bind_timeout;
        let mut gates = std::mem::take(&mut self.nodes[id].gates);
        for gate in &mut gates {
            if gate.ends_for_bindings(bind_timeout) && gate.is_closed {
                self.push_about(cache, id, gate.daemon_set, true, ClusterWrite::GateExpiredForBindings);
            }
            if gate.tick(now, timeout, |uid| cache.is_unbound(uid)) {
                self.push_about(cache, id, gate.daemon_set, true, ClusterWrite::GateExpired);
                self.wake(cache, id);
                self.mark_dirty(id);
            }
        }
        self.nodes[id].gates = gates;
    }

    /// Handles that a pod is not assumed any more: wakes the waiting pods if one was refused because of assumed pods a moment ago.
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

    /// Forgets refused pods that the watch has not brought for long: they were deleted, or never existed.
    fn forget_waiting(&mut self, cache: &Cache, now: Instant) {
        // The watch of pods may have missed their end; they are woken when the cache is fresh again.
        if self.freshness.lacks_events() {
            return;
        }
        let is_known = |uid: &str| cache.pod_id(uid).is_some();
        self.waiting.retain(|uid, refused_at| {
            is_known(uid) || now.saturating_duration_since(*refused_at) < UNKNOWN_POD
        });
        self.waits.retain(is_known, UNKNOWN_POD, now);
    }
}
