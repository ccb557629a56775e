//! Rules that only live data can judge by: what the cluster's nodes, pods, namespaces and quotas make of a DaemonSet.
//!
//! They look at each node once, and at a node's pods only where the DaemonSet might not fit; nothing is asked of the cluster.

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
use crate::daemonset::placement::exclusion;
use crate::policy::startup_taints::is_transient_taint;
use crate::scheduling::taints::{any_tolerates, blocks_scheduling};

/// A rule that judges a DaemonSet by the cluster that it is meant for.
pub type LiveRule = Rule<fn(&LiveData<'_>) -> Vec<Error>>;

/// All of them; faults are reported in this order, behind those of the other rules.
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

/// A DaemonSet and the cluster that it is meant for.
#[derive(Debug)]
pub struct LiveData<'c> {
    /// What is known of the cluster; all of it.
    pub cluster: &'c Cache,
    /// The DaemonSet as it is to be.
    pub daemon_set: &'c DaemonSet,
    /// The DaemonSet as the cluster knows it, if it does.
    pub known: Option<(DaemonSetId, &'c DaemonSetInfo)>,
    /// How many nodes there are.
    pub node_count: usize,
    /// Nodes that its pods are for, once the taints that go by themselves have gone.
    pub matching: Vec<(&'c NodeInfo, &'c Node)>,
}

impl<'c> LiveData<'c> {
    /// Finds out which nodes `daemon_set`, of `group`, is for.
    pub fn new(cluster: &'c Cache, group: &str, daemon_set: &'c DaemonSet) -> Self {
        let metadata = &daemon_set.metadata;
        let is_same = |info: &DaemonSetInfo| {
            let own = &info.daemon_set.metadata;
            &*info.group == group && own.namespace == metadata.namespace && own.name == metadata.name
        };
        let known = cluster.daemon_sets().find(|(_, info)| is_same(info));
        let tolerations = DaemonSetInfo::tolerations_of(daemon_set);
        let policy = cluster.policy();
        let matches = |node: &Node| {
            let mut lasting = node
                .spec
                .taints
                .iter()
                .filter(|taint| blocks_scheduling(taint) && !is_transient_taint(taint, policy));
            exclusion(&daemon_set.spec.template.spec, node).is_none()
                && lasting.all(|taint| any_tolerates(&tolerations, taint))
        };
        let mut node_count = 0;
        let mut matching = Vec::new();
        for (_, state) in cluster.nodes() {
            let Some(node) = &state.node else { continue };
            node_count += 1;
            if matches(node) {
                matching.push((state, node));
            }
        }
        Self { cluster, daemon_set, known, node_count, matching }
    }
}

/// `1 node`, `2 nodes`
fn nodes(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
