//! The end of a deleted DaemonSet: its holds, gates and records on all nodes.

use std::time::Instant;

use super::Reservation;
use super::hold::{EndReason, HoldState};
use crate::cache::node_info::remove_id;
use crate::cache::{Cache, DaemonSetId, NodeId};

/// The nodes that are visited before the lock is given to others. Each may have some hundred holds.
const NODES_AT_ONCE: usize = 128;

impl Reservation {
    /// Forgets a DaemonSet that was deleted. If there are many nodes, [`Self::refresh_some`] does the rest; its record names it for
    /// the Events until then, and the cache does not give out its id.
    pub(super) fn forget_daemon_set(&mut self, cache: &Cache, id: DaemonSetId, now: Instant) {
        let (Some(info), Some(row)) = (cache.deleted_daemon_set(id), self.daemon_sets.get_mut(id)) else {
            self.forgotten.push(id);
            return;
        };
        (row.may_hold, row.gate) = (false, None);
        self.lapsed.remove(&id);
        for next in self.oldest.remove(&info.daemon_set.metadata, id) {
            self.recheck_daemon_set(cache, next);
        }
        let next = self.forget_on_some(cache, id, 0, now);
        self.place_later(id, next);
    }

    /// Visits a few nodes from the id `from` on. Returns the first that is left; after the last, the record goes.
    pub(super) fn forget_on_some(
        &mut self,
        cache: &Cache,
        id: DaemonSetId,
        from: NodeId,
        now: Instant,
    ) -> Option<NodeId> {
        let until = from.saturating_add(NODES_AT_ONCE);
        for node in from..until.min(self.nodes.len()) {
            self.forget_on(cache, id, node, now);
        }
        if until < self.nodes.len() {
            return Some(until);
        }
        self.daemon_sets[id] = Default::default();
        self.forgotten.push(id);
        None
    }

    fn forget_on(&mut self, cache: &Cache, id: DaemonSetId, node: NodeId, now: Instant) {
        let row = &mut self.nodes[node];
        remove_id(&mut row.landed, &id);
        if self.daemon_sets[id].desired_on.contains(node) {
            remove_id(&mut row.desired, &id);
            self.mark_dirty(node);
        }
        self.drop_hold(cache, node, id, now);
        let gates = &mut self.nodes[node].gates;
        if let Some(at) = gates.iter().position(|gate| gate.daemon_set == id)
            && gates.swap_remove(at).is_closed
        {
            self.mark_dirty(node);
            self.wake(cache, node);
        }
        self.nodes[node].update_counts();
    }

    /// Ends the hold of a deleted DaemonSet on a node. What was charged for it stays charged.
    fn drop_hold(&mut self, cache: &Cache, node: NodeId, id: DaemonSetId, now: Instant) {
        let holds = &mut self.nodes[node].holds;
        let Some(at) = holds.iter().position(|hold| hold.pod.daemon_set == id) else { return };
        // The order of the others must stay.
        let mut hold = holds.remove(at);
        self.count_unborn(node);
        if hold.state == HoldState::Held {
            self.end_hold(cache, node, &mut hold, EndReason::NotWanted, now);
        }
        self.mark_dirty(node);
    }

    /// Returns the deleted DaemonSets that are recorded nowhere any more since the last call: their ids may be given out again.
    pub fn take_forgotten(&mut self) -> Vec<DaemonSetId> {
        std::mem::take(&mut self.forgotten)
    }
}
