//! The refresh of a node's gates.

use std::sync::Arc;
use std::time::Instant;

use super::Reservation;
use super::cluster_write::ClusterWrite;
use super::first_ready::has_room_for_first_ready;
use super::gate::{Gate, GateKind, first_ready_annotation};
use crate::cache::{Cache, DaemonSetId, NodeId};

impl Reservation {
    pub(super) fn refresh_gates(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        let gated = |daemon_set: &&DaemonSetId| self.daemon_sets[**daemon_set].gate.is_some();
        let desired: Vec<DaemonSetId> = self.nodes[id].desired.iter().filter(gated).copied().collect();
        if desired.is_empty() && self.nodes[id].gates.is_empty() {
            return;
        }
        let mut gates = std::mem::take(&mut self.nodes[id].gates);
        let was_closed = gates.iter().any(|gate| gate.is_closed);
        let mut kept = Vec::with_capacity(desired.len());
        let mut any_is_ready = false;
        for daemon_set in desired {
            let Some(info) = cache.daemon_set_if_known(daemon_set) else { continue };
            let at = gates.iter().position(|gate| gate.daemon_set == daemon_set);
            let mut gate = match at {
                Some(at) => gates.swap_remove(at),
                None => Gate::new(daemon_set, info.uid.clone()),
            };
            let is_ready = is_ready_on(cache, id, daemon_set);
            any_is_ready |= is_ready;
            gate.was_ready |= is_ready;
            let first_only = self.daemon_sets[daemon_set].gate == Some(GateKind::FirstReady);
            let is_first_ready_recorded = first_only && is_first_ready_recorded(cache, id, &info.uid);
            if is_ready || first_only && (is_first_ready_recorded || gate.was_ready) {
                gate.open();
            } else {
                gate.is_closed = !gate.is_expired;
            }
            let may_record = first_only && gate.may_record_first_ready(is_first_ready_recorded);
            let has_room = || cache.node_by_id(id).node.as_ref().is_some_and(has_room_for_first_ready);
            if may_record && gate.was_ready && has_room() && gate.should_record_first_ready(now) {
                let (node, daemon_set_uid) = (cache.node_by_id(id).name.clone(), info.uid.clone());
                self.writes.push(ClusterWrite::RecordFirstReady { node, daemon_set_uid });
            }
            kept.push(gate);
        }
        // The other gates are not desired any more. Their records stay for the time that was spent, as those of holds.
        for mut gate in gates.into_iter().filter(|gate| !gate.is_blank() || gate.is_closed) {
            gate.suspend(now);
            if !gate.is_blank() {
                kept.push(gate);
            }
        }
        let is_closed = kept.iter().any(|gate| gate.is_closed);
        self.nodes[id].gates = kept;
        if was_closed && !is_closed {
            // A pod that becomes Ready is an event for the scheduler; the end of a gate for another reason is not.
            if any_is_ready { self.room_freed(cache, id, now) } else { self.wake(cache, id) }
        }
    }
}

fn is_ready_on(cache: &Cache, id: NodeId, daemon_set: DaemonSetId) -> bool {
    let mut pods = cache.node_by_id(id).daemon_pods.iter().map(|pod| cache.pod_by_id(*pod));
    pods.any(|pod| pod.has_landed_for(daemon_set) && pod.is_ready)
}

fn is_first_ready_recorded(cache: &Cache, id: NodeId, daemon_set_uid: &Arc<str>) -> bool {
    let node = cache.node_by_id(id).node.as_ref();
    let key = first_ready_annotation(daemon_set_uid);
    node.is_some_and(|node| node.metadata.annotations.contains_key(&key))
}
