//! The effects of changes of the cache on the reservation, in the order of the events.

use std::time::Instant;

use super::Reservation;
use super::cluster_write::{ClusterWrite, HoldSubject};
use super::hold::{EndReason, HoldState};
use super::node_reservation::{DaemonSetReservation, NodeFreshness, NodeReservation};
use crate::api::node::Node;
use crate::cache::change::Change;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};

impl Reservation {
    /// Handles the `changes` of the cache. Call it after each event and before any call of the scheduler is answered;
    /// [`super::View::observe`] calls it.
    pub fn observe(&mut self, cache: &Cache, changes: Vec<Change>, now: Instant) {
        self.cover(cache);
        for change in changes {
            self.observe_one(cache, change, now);
        }
    }

    fn observe_one(&mut self, cache: &Cache, change: Change, now: Instant) {
        match change {
            Change::NodeAdded(id) => {
                self.nodes[id].freshness = NodeFreshness::Fresh;
                self.update_desired(cache, id);
            }
            Change::NodeChanged(id) => self.update_desired(cache, id),
            Change::NodeResized(id) => {
                self.room_freed(cache, id, now);
                self.mark_dirty(id);
            }
            Change::NodeAnnotated(id) => {
                if !self.nodes[id].gates.is_empty() {
                    self.mark_dirty(id);
                }
            }
            Change::NodeGone(id, node) => self.end_all_on(cache, id, &node, now),
            Change::NodeForgotten(id) => {
                self.nodes[id] = NodeReservation::default();
                self.nominations.forget_node(id);
            }
            Change::PodsChanged(id) => {
                if !self.nodes[id].desired.is_empty() {
                    self.mark_dirty(id);
                }
            }
            Change::RoomFreed(id) => self.room_freed(cache, id, now),
            Change::PodBound => self.nominations.note_binding(now),
            Change::PodNotPending(uid) => {
                self.waiting.remove(&uid);
                self.nominations.forget(&uid);
                if self.assumed.forget(&uid) {
                    self.assumed_pod_forgotten(cache, now);
                }
            }
            Change::PodChanged(id) => {
                if let Some(pod) = cache.pod_if_known(id) {
                    self.nominations.observe(&pod.uid, pod.nominated, pod.failed_version());
                }
            }
            Change::DaemonSetChanged(id) => {
                if let Some(info) = cache.daemon_set_if_known(id) {
                    self.put_daemon_set(cache, id, info);
                    self.update_desired_by(cache, id);
                }
            }
            Change::DemandChanged(id) => {
                for node in 0..self.nodes.len() {
                    if self.nodes[node].desired.contains(&id) {
                        self.mark_dirty(node);
                    }
                }
            }
            Change::DaemonSetGone(id) => self.forget_daemon_set(cache, id, now),
            Change::NamespaceChanged(name) => self.recheck_daemon_sets_of(cache, &name),
        }
    }

    /// Replaces the record of a DaemonSet by one of its present values.
    fn put_daemon_set(&mut self, cache: &Cache, id: DaemonSetId, info: &DaemonSetInfo) {
        let metadata = &info.daemon_set.metadata;
        let row = DaemonSetReservation {
            may_hold: self.may_hold(cache, &info.daemon_set),
            gate: self.gate(cache, &info.daemon_set),
            subject: HoldSubject {
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
                api_version: info.daemon_set.api_version.clone(),
                kind: info.daemon_set.kind.clone(),
                uid: info.uid.clone(),
                ..HoldSubject::default()
            },
        };
        if self.daemon_sets.len() <= id {
            self.daemon_sets.resize_with(id + 1, DaemonSetReservation::default);
        }
        self.daemon_sets[id] = row;
    }

    fn recheck_daemon_sets_of(&mut self, cache: &Cache, namespace: &str) {
        for (id, info) in cache.daemon_sets() {
            if info.daemon_set.metadata.namespace != namespace || id >= self.daemon_sets.len() {
                continue;
            }
            let (may_hold, gate) =
                (self.may_hold(cache, &info.daemon_set), self.gate(cache, &info.daemon_set));
            let row = &mut self.daemon_sets[id];
            if (row.may_hold, row.gate) != (may_hold, gate) {
                (row.may_hold, row.gate) = (may_hold, gate);
                self.update_desired_by(cache, id);
            }
        }
    }

    /// Ends the holds and gates of a DaemonSet that was deleted, while its record still names it for the Events.
    fn forget_daemon_set(&mut self, cache: &Cache, id: DaemonSetId, now: Instant) {
        let Some(row) = self.daemon_sets.get_mut(id) else { return };
        (row.may_hold, row.gate) = (false, None);
        self.update_desired_by(cache, id);
        self.refresh_all(cache, now);
        for row in &mut self.nodes {
            row.holds.retain(|hold| hold.pod.daemon_set != id);
            row.gates.retain(|gate| gate.daemon_set != id);
        }
        self.daemon_sets[id] = DaemonSetReservation::default();
    }

    /// Ends all holds and gates of a deleted Node. The time that was spent is dropped, for the next Node of the name is another.
    fn end_all_on(&mut self, cache: &Cache, id: NodeId, node: &Node, now: Instant) {
        let row = &mut self.nodes[id];
        row.gates.clear();
        row.desired.clear();
        row.highest_desired_priority = None;
        row.has_hold_or_gate = false;
        for hold in std::mem::take(&mut row.holds) {
            // No room is freed, so no pod is woken.
            if hold.state == HoldState::Held {
                let subject = self.hold_subject(node, hold.pod.daemon_set, hold.has_refused);
                self.writes.push(ClusterWrite::HoldEnded(subject, EndReason::NodeGone));
            }
        }
        self.enqueue_nominations(cache, id, now);
    }
}
