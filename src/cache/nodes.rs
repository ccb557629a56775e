//! Nodes come, change and go.

use std::time::Instant;

use super::node_info::{NodeFreshness, NodeInfo};
use super::{Cache, NodeId};
use crate::api::node::Node;
use crate::policy::opt_out;
use crate::policy::startup_taints::is_transient_taint;
use crate::policy::{Policy, ReservationMode};
use crate::reservation::hold::EndReason;
use crate::scheduling::label_selector;
use crate::scheduling::resources::Resources;

/// Taints of nodes that an autoscaler is about to take away: the current and the former names.
const REMOVAL_TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"];

impl Cache {
    /// A Node was added or changed.
    pub fn apply_node(&mut self, node: Node, now: Instant) {
        let id = self.node_id_or_new(&node.metadata.name);
        let is_known = self.nodes[id].node.is_some();
        if is_known && self.nodes[id].uid() != node.metadata.uid {
            // While the one that is gone can still be named.
            self.end_holds(id, EndReason::NodeGone, now);
        }
        let state = &mut self.nodes[id];
        let old = state.node.replace(node);
        // Just replaced: it is there.
        let Some(node) = &state.node else { return };
        let is_another = old.as_ref().is_none_or(|old| old.metadata.uid != node.metadata.uid);
        let allocatable = Resources::from_list(node.allocatable());
        let resized = state.allocatable != allocatable;
        state.allocatable = allocatable;
        if resized {
            self.opened(id, now);
        }
        let state = &self.nodes[id];
        let Some(node) = &state.node else { return };
        if let (Some(old), false) = (&old, is_another) {
            let same_place = old.metadata.labels == node.metadata.labels
                && old.spec.taints == node.spec.taints
                && old.metadata.is_deleting() == node.metadata.is_deleting();
            let same_gates = old.metadata.annotations == node.metadata.annotations;
            if same_place && !resized && (same_gates || state.gates.is_empty()) {
                return;
            }
            if same_place {
                self.mark_dirty(id);
                return;
            }
        }
        if is_another {
            self.nodes[id].staleness = NodeFreshness::Fresh;
        }
        self.work_out_wanted(id);
    }

    /// A Node is gone.
    pub fn delete_node(&mut self, name: &str, now: Instant) {
        let Some(id) = self.node_id(name) else { return };
        self.end_holds(id, EndReason::NodeGone, now);
        let state = &mut self.nodes[id];
        state.node = None;
        state.allocatable = Resources::default();
        state.wanted.clear();
        state.highest_wanted_priority = None;
        state.is_kept = false;
        self.forget_node_if_unused(id);
    }

    /// The names of all Nodes that exist: what a relist did not bring is gone.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.node.is_some())
            .map(|(_, node)| node.name.to_string())
            .collect()
    }

    pub(super) fn node_id_or_new(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.node_id(name) {
            return id;
        }
        let name = self.texts.intern(name);
        let id = self.nodes.insert(NodeInfo::new(name.clone()));
        self.node_ids.insert(name, id);
        id
    }

    pub(super) fn forget_node_if_unused(&mut self, id: NodeId) {
        if self.nodes[id].is_unused() {
            let state = self.nodes.remove(id);
            self.node_ids.remove(&state.name);
        }
    }

    /// Works out which DaemonSets want a node.
    fn work_out_wanted(&mut self, id: NodeId) {
        let policy = self.policy.clone();
        let mut wanted = Vec::new();
        if let Some(node) = self.nodes[id].node.as_ref().filter(|node| takes_part(node, &policy)) {
            let wants = |info: &super::daemonset_info::DaemonSetInfo| {
                info.takes_nodes() && info.wants(node, |taint| is_transient_taint(taint, &policy))
            };
            wanted = self.daemon_sets.iter().filter(|(_, info)| wants(info)).map(|(id, _)| id).collect();
        }
        self.nodes[id].wanted = wanted;
        self.mark_dirty(id);
    }

    /// Works out which nodes a DaemonSet wants.
    pub(super) fn work_out_wanted_by(&mut self, daemon_set: super::DaemonSetId) {
        let policy = self.policy.clone();
        let mut changed = Vec::new();
        let info = self.daemon_sets.get(daemon_set);
        for (id, state) in self.nodes.iter_mut() {
            let wants = match (&state.node, info) {
                (Some(node), Some(info)) => {
                    info.takes_nodes()
                        && takes_part(node, &policy)
                        && info.wants(node, |taint| is_transient_taint(taint, &policy))
                }
                _ => false,
            };
            let wanted = state.wanted.contains(&daemon_set);
            if wants && !wanted {
                state.wanted.push(daemon_set);
            } else if wanted && !wants {
                super::node_info::remove_id(&mut state.wanted, &daemon_set);
            }
            if wants || wanted {
                changed.push(id);
            }
        }
        for id in changed {
            self.mark_dirty(id);
        }
    }

    pub(super) fn mark_dirty(&mut self, id: NodeId) {
        let state = &mut self.nodes[id];
        if !std::mem::replace(&mut state.is_dirty, true) {
            self.dirty.push(id);
        }
    }
}

/// Whether room is kept on the node at all.
fn takes_part(node: &Node, policy: &Policy) -> bool {
    let labels = &node.metadata.labels;
    let is_opted_out = opt_out::is_opted_out(labels)
        || policy
            .reservation
            .ignore_nodes
            .iter()
            .any(|selector| label_selector::matches(Some(selector), labels) == Some(true));
    let is_leaving = node.metadata.is_deleting()
        || node.spec.taints.iter().any(|taint| REMOVAL_TAINTS.contains(&taint.key.as_str()));
    policy.reservation.mode != ReservationMode::Off && !is_opted_out && !is_leaving
}
