//! Rules that need live data: they check a DaemonSet against the nodes, pods, namespaces, priority classes and quotas in the cache.
//!
//! [`LiveData`] gathers the facts for all rules, a few nodes for each hold of the cache's lock, so that the scheduler's calls do not
//! wait for a review. A node's pods are read only if the DaemonSet might not fit there. No rule calls the apiserver.

mod critical_class_quota;
mod does_not_fit;
mod missing_priority_class;
mod namespace_node_selector;
mod no_matching_node;
mod overlapping_selector;
mod size;
mod virtual_nodes;
mod wedged_rollout;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use self::does_not_fit::Fit;
use self::namespace_node_selector::HiddenNodes;
use self::no_matching_node::Exclusions;
use self::overlapping_selector::Overlaps;
use self::size::BATCH_STEPS;
use self::virtual_nodes::VirtualNodes;
use self::wedged_rollout::Rollout;
use super::rule::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::ErrorList;
use crate::api::node::Node;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::daemonset::placement::{Reason, place, tolerates};
use crate::policy::startup_taints::is_transient_taint;
use crate::scheduling::quota;

/// A rule that checks a DaemonSet against the cluster.
pub type LiveRule = Rule<fn(&LiveData<'_>) -> ErrorList>;

/// All live-data rules. Faults are reported in this order, after those of [`RULES`](super::rules::RULES).
pub const LIVE_RULES: &[LiveRule] = &[
    no_matching_node::RULE,
    does_not_fit::RULE,
    overlapping_selector::RULE,
    missing_priority_class::RULE,
    critical_class_quota::RULE,
    namespace_node_selector::RULE,
    wedged_rollout::RULE,
    virtual_nodes::RULE,
];

/// The access of a review to the cache. Functions that call their argument with the cache implement it.
pub trait ReadCache {
    /// Calls `call` with the cache, which is locked for as long.
    ///
    /// # Errors
    /// Fails without a call if the cache is not fresh, or the time of the review is over.
    fn read(&self, call: &mut dyn FnMut(&Cache)) -> Result<(), Unread>;

    /// Returns false if [`Self::read`] would fail because the cache is not fresh.
    fn is_fresh(&self) -> bool {
        true
    }

    /// Allows so many steps, of 100 ns at most each, on this thread.
    ///
    /// # Errors
    /// Fails if the review is to be repeated where there is time for them.
    fn may_take(&self, _steps: usize) -> Result<(), Unread> {
        Ok(())
    }
}

impl<F: Fn(&mut dyn FnMut(&Cache)) -> Result<(), Unread>> ReadCache for F {
    fn read(&self, call: &mut dyn FnMut(&Cache)) -> Result<(), Unread> {
        self(call)
    }
}

/// The reason for which a DaemonSet is not checked against the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The cache is not fresh.
    Stale,
    /// The DaemonSet is too large for the number of nodes, or has texts that Kubernetes does not allow.
    TooLarge,
    /// The time of the review is over.
    TooLate,
    /// The review is to be repeated on another thread: its outcome counts for nothing.
    Deferred,
}

/// A DaemonSet, and the facts about the cluster that it is checked against.
#[derive(Debug)]
pub struct LiveData<'d> {
    /// The DaemonSet of the request.
    pub daemon_set: &'d DaemonSet,
    /// Nodes of the cluster.
    pub node_count: usize,
    /// Nodes that the DaemonSet's pods will run on once transient taints are gone.
    pub matching: usize,
    tolerations: Vec<Toleration>,
    exclusions: Exclusions,
    fit: Fit,
    overlaps: Overlaps,
    class_exists: bool,
    class_has_quota: bool,
    hidden_nodes: HiddenNodes,
    rollout: Option<Rollout>,
    virtual_nodes: VirtualNodes,
}

impl<'d> LiveData<'d> {
    /// Reads the facts about `daemon_set`, of API group `group`. Visits every node, a few for each call of `cache`.
    ///
    /// # Errors
    /// Returns the reason if there are no facts.
    pub fn read(cache: &dyn ReadCache, group: &str, daemon_set: &'d DaemonSet) -> Result<Self, Unread> {
        if !cache.is_fresh() {
            return Err(Unread::Stale);
        }
        let of_node = match size::steps_of_node(daemon_set) {
            Ok(steps) => steps,
            // Without a fresh cache the size does not matter.
            Err(unread) => return cache.read(&mut |_| ()).and(Err(unread)),
        };
        let tolerations = DaemonSetInfo::tolerations_of(daemon_set);
        let mut found = None;
        cache.read(&mut |cluster| {
            found = Some((
                Self::begin(cluster, group, daemon_set),
                cluster.nodes().map(|(id, _)| id).collect::<Vec<NodeId>>(),
                Overlaps::others(cluster, group, daemon_set),
            ));
        })?;
        let (mut data, nodes, others) = found.ok_or(Unread::Stale)?;
        data.tolerations = tolerations;
        cache.may_take(size::steps(nodes.len(), of_node, others.len())?)?;
        for nodes in nodes.chunks((BATCH_STEPS / of_node).max(1)) {
            cache.read(&mut |cluster| {
                // A node may have gone since the ids were read.
                for info in nodes.iter().filter_map(|id| cluster.node_if_known(*id)) {
                    if let Some(node) = &info.node {
                        data.add_node(cluster, info, node);
                    }
                }
            })?;
        }
        for others in others.chunks(overlapping_selector::BATCH) {
            cache.read(&mut |cluster| data.overlaps.add(cluster, daemon_set, others))?;
        }
        Ok(data)
    }

    /// Reads the facts that are not about nodes.
    fn begin(cluster: &Cache, group: &str, daemon_set: &'d DaemonSet) -> Self {
        let known = known(cluster, group, daemon_set);
        let class = daemon_set.spec.template.spec.priority_class_name.as_str();
        let namespace = daemon_set.metadata.namespace.as_str();
        Self {
            daemon_set,
            node_count: 0,
            matching: 0,
            tolerations: Vec::new(),
            exclusions: Exclusions::default(),
            fit: Fit::new(cluster, daemon_set, known.map(|(id, _)| id)),
            overlaps: Overlaps::default(),
            class_exists: cluster.priority_class(class).is_some(),
            class_has_quota: cluster
                .resource_quotas(namespace)
                .any(|quota| quota::is_for_class(quota, class)),
            hidden_nodes: HiddenNodes::new(cluster.namespace(namespace)),
            rollout: known.and_then(|(id, known)| Rollout::new(id, &known.daemon_set, daemon_set)),
            virtual_nodes: VirtualNodes::default(),
        }
    }

    fn add_node(&mut self, cluster: &Cache, info: &NodeInfo, node: &Node) {
        self.node_count += 1;
        let template = &self.daemon_set.spec.template.spec;
        let policy = cluster.policy();
        if let Some(reason) = place(template, &self.tolerations, node).reason {
            let is_transient = |taint: &Taint| is_transient_taint(taint, policy);
            if !matches!(reason, Reason::Taint(_)) || !tolerates(&self.tolerations, node, is_transient) {
                // The reasons are shown only if no node matches.
                if self.matching == 0 {
                    self.exclusions.add(&reason);
                }
                return;
            }
        }
        self.matching += 1;
        self.fit.add(cluster, info, node);
        self.hidden_nodes.add(node);
        self.virtual_nodes.add(node);
        if let Some(rollout) = &mut self.rollout {
            rollout.add(cluster, info);
        }
    }
}

/// Returns the DaemonSet in the cache, unless it is new.
fn known<'c>(
    cluster: &'c Cache,
    group: &str,
    daemon_set: &DaemonSet,
) -> Option<(DaemonSetId, &'c DaemonSetInfo)> {
    let metadata = &daemon_set.metadata;
    let is_same = |info: &DaemonSetInfo| {
        let own = &info.daemon_set.metadata;
        &*info.group == group && own.namespace == metadata.namespace && own.name == metadata.name
    };
    cluster.daemon_sets().find(|(_, info)| is_same(info))
}

/// Returns `1 node` or `2 nodes`.
fn nodes(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
