//! Rules that need live data: they check a DaemonSet against the nodes, pods, namespaces, priority classes and quotas in the cache.
//!
//! Each rule reads every node once at most, and a node's pods only if the DaemonSet might not fit there. No rule calls the
//! apiserver.

mod critical_class_quota;
mod does_not_fit;
mod missing_priority_class;
mod namespace_node_selector;
mod no_matching_node;
mod overlapping_selector;
mod virtual_nodes;
mod wedged_rollout;

use super::rule::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::Error;
use crate::api::node::Node;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, DaemonSetId};
use crate::daemonset::placement::admits;
use crate::policy::startup_taints::is_transient_taint;

/// A rule that checks a DaemonSet against the cluster.
pub type LiveRule = Rule<fn(&LiveData<'_>) -> Vec<Error>>;

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

/// A DaemonSet and the cluster that it is checked against.
#[derive(Debug)]
pub struct LiveData<'c> {
    /// The cache, which must be fresh.
    pub cluster: &'c Cache,
    /// The DaemonSet of the request.
    pub daemon_set: &'c DaemonSet,
    /// The same DaemonSet as the cache has it; `None` if it is new.
    pub known: Option<(DaemonSetId, &'c DaemonSetInfo)>,
    /// The number of nodes of the cluster.
    pub node_count: usize,
    /// Nodes that the DaemonSet's pods will run on once transient taints are gone.
    pub matching: Vec<(&'c NodeInfo, &'c Node)>,
}

impl<'c> LiveData<'c> {
    /// Finds the nodes that the pods of `daemon_set`, of API group `group`, will run on. Reads every node.
    pub fn new(cluster: &'c Cache, group: &str, daemon_set: &'c DaemonSet) -> Self {
        let metadata = &daemon_set.metadata;
        let is_same = |info: &DaemonSetInfo| {
            let own = &info.daemon_set.metadata;
            &*info.group == group && own.namespace == metadata.namespace && own.name == metadata.name
        };
        let known = cluster.daemon_sets().find(|(_, info)| is_same(info));
        let tolerations = DaemonSetInfo::tolerations_of(daemon_set);
        let policy = cluster.policy();
        let template = &daemon_set.spec.template.spec;
        let matches =
            |node: &Node| admits(template, &tolerations, node, |taint| is_transient_taint(taint, policy));
        let mut node_count = 0;
        let mut matching = Vec::new();
        for (_, info) in cluster.nodes() {
            let Some(node) = &info.node else { continue };
            node_count += 1;
            if matches(node) {
                matching.push((info, node));
            }
        }
        Self { cluster, daemon_set, known, node_count, matching }
    }
}

/// Returns `1 node` or `2 nodes`.
fn nodes(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
