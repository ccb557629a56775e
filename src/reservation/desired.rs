//! The DaemonSets that room may be reserved for, and the nodes on which a pod of them is desired.

use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Reservation;
use super::gate::{GateKind, gate_of};
use crate::api::daemonset::DaemonSet;
use crate::api::node::Node;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::node_info::remove_id;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::policy::opt_out::is_opted_out;
use crate::policy::startup_taints::is_transient_taint;
use crate::policy::{Policy, ReservationMode};
use crate::scheduling::label_selector;

/// Taints of nodes that an autoscaler is about to delete: the current and the former names.
const REMOVAL_TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"];

/// The elements of templates that are compared with nodes before the lock is given to others: a fraction of a millisecond.
const STEPS: usize = 10_000;
/// The work for a node besides, in elements.
const NODE_STEPS: usize = 10;

impl Reservation {
    /// Returns true if room may be reserved for the pods of a DaemonSet: its namespace is selected, and it is neither being deleted
    /// nor opted out.
    pub(super) fn may_hold(&self, cache: &Cache, id: DaemonSetId, daemon_set: &DaemonSet) -> bool {
        let selector = &self.policy.reservation.namespace_selector;
        !daemon_set.is_too_large
            && self.oldest.contains(&daemon_set.metadata, id)
            && !is_exempt(daemon_set)
            && namespace_allows(cache, &daemon_set.metadata.namespace, selector)
    }

    /// Returns the gate that the annotation of a DaemonSet asks for. `None` if it asks for none, is being deleted, has opted out,
    /// or is in a namespace for which the configuration allows no gates.
    pub(super) fn gate(&self, cache: &Cache, daemon_set: &DaemonSet) -> Option<GateKind> {
        let gate = gate_of(daemon_set).filter(|_| !is_exempt(daemon_set))?;
        let selector = &self.policy.readiness_gates.namespace_selector;
        namespace_allows(cache, &daemon_set.metadata.namespace, selector).then_some(gate)
    }

    /// Updates the DaemonSets of which a pod is desired on a node, and marks the node as dirty.
    pub(super) fn update_desired(&mut self, cache: &Cache, id: NodeId) {
        let Some(state) = cache.node_if_known(id) else { return };
        let mut desired = Vec::new();
        if let Some(node) = state.node.as_ref().filter(|node| is_managed_node(node, &self.policy)) {
            let all = cache.daemon_sets();
            desired =
                all.filter(|(id, info)| self.is_desired_on(*id, info, node)).map(|(id, _)| id).collect();
        }
        self.clear_desired(id);
        for daemon_set in &desired {
            self.daemon_sets[*daemon_set].desired_on.insert(id);
        }
        self.nodes[id].desired = desired;
        self.mark_dirty(id);
    }

    /// Forgets the DaemonSets of which a pod is desired on a node.
    pub(super) fn clear_desired(&mut self, id: NodeId) {
        for daemon_set in std::mem::take(&mut self.nodes[id].desired) {
            self.daemon_sets[daemon_set].desired_on.remove(id);
        }
    }

    /// Updates the nodes on which a pod of a DaemonSet is desired, and marks them as dirty, also those on which it was before. If
    /// that takes long, [`Self::refresh_some`] does the rest.
    pub(super) fn update_desired_by(&mut self, cache: &Cache, daemon_set: DaemonSetId) {
        let next = self.update_desired_from(cache, daemon_set, 0);
        self.place_later(daemon_set, next);
    }

    /// Visits the nodes from the id `next` on for a DaemonSet, after those that wait already, and not where an earlier visit had
    /// come to.
    pub(super) fn place_later(&mut self, daemon_set: DaemonSetId, next: Option<NodeId>) {
        self.placing.retain(|(other, _)| *other != daemon_set);
        self.placing.extend(next.map(|next| (daemon_set, next)));
    }

    /// Goes on with a DaemonSet whose nodes are not all visited. Returns false if there is none.
    pub(super) fn continue_placing(&mut self, cache: &Cache, now: Instant) -> bool {
        let Some((daemon_set, from)) = self.placing.pop_front() else { return false };
        let next = if cache.deleted_daemon_set(daemon_set).is_some() {
            self.forget_on_some(cache, daemon_set, from, now)
        } else {
            self.update_desired_from(cache, daemon_set, from)
        };
        if let Some(next) = next {
            self.placing.push_front((daemon_set, next));
        }
        true
    }

    /// Visits the nodes from the id `from` on, as many as [`STEPS`] allows. Returns the first that is left.
    fn update_desired_from(
        &mut self,
        cache: &Cache,
        daemon_set: DaemonSetId,
        from: NodeId,
    ) -> Option<NodeId> {
        let row = self.daemon_sets.get(daemon_set)?;
        if !row.restricts_nodes() && row.desired_on.is_empty() {
            return None;
        }
        let info = cache.daemon_set_if_known(daemon_set);
        let steps = NODE_STEPS + info.map_or(0, |info| info.daemon_set.spec.template.spec.placement_len());
        let until = from.saturating_add((STEPS / steps).max(1));
        for id in from..until.min(self.nodes.len()) {
            let node = cache.node_if_known(id).and_then(|state| state.node.as_ref());
            let is_desired = match (node, info) {
                (Some(node), Some(info)) => {
                    self.is_desired_on(daemon_set, info, node) && is_managed_node(node, &self.policy)
                }
                _ => false,
            };
            let was_desired = self.daemon_sets[daemon_set].desired_on.contains(id);
            if is_desired && !was_desired {
                self.nodes[id].desired.push(daemon_set);
                self.daemon_sets[daemon_set].desired_on.insert(id);
            } else if was_desired && !is_desired {
                remove_id(&mut self.nodes[id].desired, &daemon_set);
                self.daemon_sets[daemon_set].desired_on.remove(id);
            }
            if is_desired || was_desired {
                self.mark_dirty(id);
            }
        }
        (until < self.nodes.len()).then_some(until)
    }

    /// Updates the record of a DaemonSet after another object has changed, and its nodes if room may be reserved for it now, or no
    /// more.
    pub(super) fn recheck_daemon_set(&mut self, cache: &Cache, id: DaemonSetId) {
        let (Some(info), Some(_)) = (cache.daemon_set_if_known(id), self.daemon_sets.get(id)) else { return };
        let (may_hold, gate) =
            (self.may_hold(cache, id, &info.daemon_set), self.gate(cache, &info.daemon_set));
        let row = &mut self.daemon_sets[id];
        if (row.may_hold, row.gate) != (may_hold, gate) {
            (row.may_hold, row.gate) = (may_hold, gate);
            self.place_later(id, Some(0));
        }
    }

    fn is_desired_on(&self, id: DaemonSetId, info: &DaemonSetInfo, node: &Node) -> bool {
        self.daemon_sets.get(id).is_some_and(|row| row.restricts_nodes())
            && info.will_run_on(node, |taint| is_transient_taint(taint, &self.policy))
    }
}

/// Returns true if a namespace is cached, is not being deleted, has not opted out, and is selected.
fn namespace_allows(cache: &Cache, name: &str, selector: &LabelSelector) -> bool {
    let Some(namespace) = cache.namespace(name) else { return false };
    let labels = &namespace.metadata.labels;
    !namespace.metadata.is_deleting()
        && !is_opted_out(labels)
        && label_selector::matches(Some(selector), labels) == Some(true)
}

/// Returns true if a DaemonSet is being deleted, or it or its pods have opted out.
fn is_exempt(daemon_set: &DaemonSet) -> bool {
    daemon_set.metadata.is_deleting()
        || is_opted_out(&daemon_set.metadata.labels)
        || is_opted_out(&daemon_set.spec.template.metadata.labels)
}

/// Returns true if room may be reserved on the node: the mode is not `Off`, and the node is neither leaving nor opted out nor
/// ignored.
fn is_managed_node(node: &Node, policy: &Policy) -> bool {
    let labels = &node.metadata.labels;
    let ignored = &policy.reservation.ignore_nodes;
    let is_leaving = node.metadata.is_deleting()
        || node.spec.taints.iter().any(|taint| REMOVAL_TAINTS.contains(&taint.key.as_str()));
    policy.reservation.mode != ReservationMode::Off
        && !is_leaving
        && !is_opted_out(labels)
        && !ignored.iter().any(|selector| label_selector::matches(Some(selector), labels) == Some(true))
}
