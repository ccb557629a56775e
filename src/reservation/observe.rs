//! The effects of changes of the cache on the reservation, in the order of the events.

use std::sync::Arc;
use std::time::Instant;

use super::Reservation;
use super::cluster_write::{ClusterWrite, DaemonSetReference, HoldSubject};
use super::hold::{EndReason, HoldState};
use super::node_reservation::{DaemonSetReservation, NodeFreshness, NodeReservation};
use crate::api::node::Node;
use crate::cache::change::Change;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};

/// The DaemonSets of a changed namespace whose nodes are visited at once.
const PLACED_AT_ONCE: usize = 8;

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
                self.clear_desired(id);
                self.nodes[id].holds.clear();
                self.count_unborn(id);
                self.nodes[id] = NodeReservation::default();
                self.nominations.forget_node(id);
            }
            Change::PodsChanged(id) => {
                if !self.nodes[id].desired.is_empty() {
                    self.mark_dirty(id);
                }
            }
            Change::RoomFreed(id) => self.room_freed(cache, id, now),
            Change::PodBound(id) => {
                self.nominations.note_binding(now);
                self.note_bound(cache, id, now);
            }
            Change::PodNotPending(uid) => {
                self.waiting.remove(&uid);
                self.waits.forget(&uid);
                self.nominations.forget(&uid);
                if self.assumed.forget(&uid) {
                    self.assumed_pod_forgotten(cache, now);
                }
            }
            Change::PodChanged(id) => {
                if let Some(pod) = cache.pod_if_known(id) {
                    self.nominations.observe(&pod.uid, pod.nominated, pod.failed_version());
                    self.adopt_nomination(cache, id, now);
                }
            }
            Change::DaemonSetChanged { id, moves } => {
                if let Some(info) = cache.daemon_set_if_known(id) {
                    let restricted = self.daemon_sets.get(id).map(|row| (row.may_hold, row.gate));
                    self.put_daemon_set(cache, id, info);
                    let row = &self.daemon_sets[id];
                    if moves || restricted != Some((row.may_hold, row.gate)) {
                        self.update_desired_by(cache, id);
                    } else {
                        self.mark_desired_on(id);
                    }
                }
            }
            Change::DemandChanged(id) => self.mark_desired_on(id),
            Change::DaemonPodCreated(id) => {
                self.last_created_at = Some(now);
                if let Some(row) = self.daemon_sets.get_mut(id) {
                    row.failed_at = None;
                }
                self.recheck_lapsed(id);
                self.recheck_some_lapsed(cache, now);
            }
            Change::DaemonSetObserved(id) => {
                if let Some(row) = self.daemon_sets.get_mut(id) {
                    row.observed_at = Some(now);
                    self.recheck_lapsed(id);
                }
            }
            Change::CreationFailed(id) => self.note_failed_creation(cache, id, now),
            Change::TerminatingPodGone(namespace) => {
                self.last_termination.insert(namespace, now);
            }
            Change::DaemonSetGone(id) => self.forget_daemon_set(cache, id, now),
            Change::NamespaceChanged(name) => self.recheck_daemon_sets_of(cache, &name, now),
        }
    }

    /// Records that the controller could not create a pod, which ends the birth windows of the DaemonSet soon.
    fn note_failed_creation(&mut self, cache: &Cache, id: DaemonSetId, now: Instant) {
        let is_failing = cache.daemon_set_if_known(id).is_some_and(DaemonSetInfo::creation_has_failed);
        let Some(row) = self.daemon_sets.get_mut(id).filter(|_| is_failing) else { return };
        // The first of several counts, for each attempt fails again.
        if row.failed_at.is_none() {
            row.failed_at = Some(now);
            self.mark_desired_on(id);
        }
    }

    /// Marks the nodes on which a pod of a DaemonSet is desired.
    pub(super) fn mark_desired_on(&mut self, id: DaemonSetId) {
        let Some(row) = self.daemon_sets.get_mut(id) else { return };
        let nodes = std::mem::take(&mut row.desired_on);
        nodes.iter().for_each(|node| self.mark_dirty(node));
        self.daemon_sets[id].desired_on = nodes;
    }

    /// Sets the record of a DaemonSet.
    fn put_daemon_set(&mut self, cache: &Cache, id: DaemonSetId, info: &DaemonSetInfo) {
        let metadata = &info.daemon_set.metadata;
        let elements = 1 + info.daemon_set.spec.template.spec.placement_len();
        let changed = self.oldest.insert(metadata, id, elements);
        let known = self.daemon_sets.get(id).filter(|row| row.reference.uid == info.uid);
        let known = known.map(|row| (row.desired_on.clone(), row.observed_at, row.failed_at));
        let (desired_on, observed_at, failed_at) = known.unwrap_or_default();
        let row = DaemonSetReservation {
            desired_on,
            observed_at,
            failed_at,
            may_hold: self.may_hold(cache, id, &info.daemon_set),
            gate: self.gate(cache, &info.daemon_set),
            is_too_large: info.daemon_set.is_too_large,
            reference: Arc::new(DaemonSetReference {
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
                api_version: info.daemon_set.api_version.clone(),
                kind: info.daemon_set.kind.clone(),
                uid: info.uid.clone(),
            }),
        };
        if self.daemon_sets.len() <= id {
            self.daemon_sets.resize_with(id + 1, DaemonSetReservation::default);
        }
        let was_too_large = self.daemon_sets[id].is_too_large;
        self.daemon_sets[id] = row;
        if info.daemon_set.is_too_large && !was_too_large {
            let daemon_set = self.daemon_sets[id].reference.clone();
            let subject = HoldSubject { daemon_set, has_refused: true, ..HoldSubject::default() };
            self.writes.push(ClusterWrite::TooLarge(subject));
        }
        for other in changed {
            self.recheck_daemon_set(cache, other);
        }
    }

    fn recheck_daemon_sets_of(&mut self, cache: &Cache, namespace: &str, now: Instant) {
        for (id, info) in cache.daemon_sets() {
            if info.daemon_set.metadata.namespace == namespace {
                self.recheck_daemon_set(cache, id);
            }
        }
        // Few are done at once, as after most events; the rest follows.
        for _ in 0..PLACED_AT_ONCE {
            self.continue_placing(cache, now);
        }
    }

    /// Ends all holds and gates of a deleted Node. The time that was spent is dropped, for the next Node of the name is another.
    fn end_all_on(&mut self, cache: &Cache, id: NodeId, node: &Node, now: Instant) {
        let row = &mut self.nodes[id];
        row.gates.clear();
        row.landed.clear();
        row.recheck_at = None;
        row.highest_desired_priority = None;
        row.beyond_limit = 0;
        let holds = std::mem::take(&mut row.holds);
        row.update_counts();
        self.count_unborn(id);
        for mut hold in holds {
            self.refund(&mut hold);
            // No room is freed, so no pod is woken.
            if hold.state == HoldState::Held {
                let subject = self.hold_subject(node, hold.pod.daemon_set, hold.has_refused);
                self.writes.push(ClusterWrite::HoldEnded(subject, EndReason::NodeGone));
            }
        }
        self.clear_desired(id);
        self.enqueue_nominations(cache, id, now);
    }
}
