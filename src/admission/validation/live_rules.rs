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
mod virtual_nodes;
mod wedged_rollout;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use self::does_not_fit::Fit;
use self::namespace_node_selector::HiddenNodes;
use self::no_matching_node::Exclusions;
use self::overlapping_selector::Overlaps;
use self::virtual_nodes::VirtualNodes;
use self::wedged_rollout::Rollout;
use super::rule::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::ErrorList;
use crate::api::node::Node;
use crate::api::pod::{Container, PodSpec};
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::daemonset::placement::admits;
use crate::policy::startup_taints::is_transient_taint;
use crate::scheduling::label_selector::expressions;
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

/// The most elements of a DaemonSet that is checked against the cluster: some of the rules clone it under the lock. DaemonSets have
/// fewer than a hundred.
const MAX_ELEMENTS: usize = 5_000;
/// The steps of one hold of the cache's lock, each of 100 ns at most: one millisecond.
const BATCH_STEPS: usize = 10_000;
/// The steps of one review: 0.5 s at most, of the 3 s that the apiserver waits. For 5,000 nodes these are 1,000 for each, and a usual
/// DaemonSet takes a hundred.
const MAX_STEPS: usize = 5_000_000;
/// The steps of a node besides the comparisons of labels and taints: one for each pod of a usual node.
const NODE_STEPS: usize = 50;
/// The taints of a usual node.
const NODE_TAINTS: usize = 3;

/// A function that calls its argument with the cache, which is locked for as long. It returns false without a call if the cache is not
/// fresh.
pub type ReadCache<'r> = dyn Fn(&mut dyn FnMut(&Cache)) -> bool + 'r;

/// The reason for which a DaemonSet is not checked against the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The cache is not fresh.
    Stale,
    /// The DaemonSet is too large for the number of nodes.
    TooLarge,
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
    /// Reads the facts about `daemon_set`, of API group `group`. Visits every node, a few for each call of `read`.
    ///
    /// # Errors
    /// Returns the reason if there are no facts.
    pub fn read(read: &ReadCache<'_>, group: &str, daemon_set: &'d DaemonSet) -> Result<Self, Unread> {
        if elements(daemon_set) > MAX_ELEMENTS {
            return Err(Unread::TooLarge);
        }
        let steps = NODE_STEPS + comparisons(&daemon_set.spec.template.spec);
        let mut found = None;
        let is_fresh = read(&mut |cluster| {
            found = Some((
                Self::begin(cluster, group, daemon_set),
                cluster.nodes().map(|(id, _)| id).collect::<Vec<NodeId>>(),
                Overlaps::others(cluster, group, daemon_set),
            ));
        });
        let (mut data, nodes, others) = found.filter(|_| is_fresh).ok_or(Unread::Stale)?;
        if nodes.len().saturating_mul(steps) > MAX_STEPS {
            return Err(Unread::TooLarge);
        }
        let batch = (BATCH_STEPS / steps).max(1);
        data.read_nodes(read, &nodes, batch, Self::add_node)?;
        if data.matching == 0 {
            data.read_nodes(read, &nodes, batch, Self::add_excluded_node)?;
        }
        for others in others.chunks(overlapping_selector::BATCH) {
            let is_fresh = read(&mut |cluster| data.overlaps.add(cluster, daemon_set, others));
            is_fresh.then_some(()).ok_or(Unread::Stale)?;
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
            tolerations: DaemonSetInfo::tolerations_of(daemon_set),
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

    fn read_nodes(
        &mut self,
        read: &ReadCache<'_>,
        nodes: &[NodeId],
        batch: usize,
        mut add: impl FnMut(&mut Self, &Cache, &NodeInfo, &Node),
    ) -> Result<(), Unread> {
        for batch in nodes.chunks(batch) {
            let is_fresh = read(&mut |cluster| {
                // A node may have gone since the ids were read.
                for info in batch.iter().filter_map(|id| cluster.node_if_known(*id)) {
                    if let Some(node) = &info.node {
                        add(self, cluster, info, node);
                    }
                }
            });
            is_fresh.then_some(()).ok_or(Unread::Stale)?;
        }
        Ok(())
    }

    fn add_node(&mut self, cluster: &Cache, info: &NodeInfo, node: &Node) {
        self.node_count += 1;
        let template = &self.daemon_set.spec.template.spec;
        let policy = cluster.policy();
        if !admits(template, &self.tolerations, node, |taint| is_transient_taint(taint, policy)) {
            return;
        }
        self.matching += 1;
        self.fit.add(cluster, info, node);
        self.hidden_nodes.add(node);
        self.virtual_nodes.add(node);
        if let Some(rollout) = &mut self.rollout {
            rollout.add(cluster, info);
        }
    }

    fn add_excluded_node(&mut self, _: &Cache, _: &NodeInfo, node: &Node) {
        self.exclusions.add(&self.daemon_set.spec.template.spec, &self.tolerations, node);
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

/// Returns the number of elements that the rules may visit.
fn elements(daemon_set: &DaemonSet) -> usize {
    let template = &daemon_set.spec.template;
    let containers = template.spec.containers.iter().chain(&template.spec.init_containers);
    let of_container = |container: &Container| {
        let resources = &container.resources;
        1 + container.ports.len() + resources.requests.len() + resources.limits.len()
    };
    let selector = daemon_set.spec.selector.as_ref().map_or(0, requirements);
    selector
        + template.metadata.labels.len()
        + comparisons(&template.spec)
        + containers.map(of_container).sum::<usize>()
}

/// Returns the number of labels and values that a selector names.
fn requirements(selector: &LabelSelector) -> usize {
    let values = expressions(selector).iter().map(|one| 1 + one.values.as_ref().map_or(0, Vec::len));
    selector.match_labels.as_ref().map_or(0, |labels| labels.len()) + values.sum::<usize>()
}

/// Returns the number of comparisons of a pod of `template` with one node.
fn comparisons(template: &PodSpec) -> usize {
    let terms =
        template.affinity.node_affinity.required.iter().flat_map(|required| &required.node_selector_terms);
    let requirements = terms.map(|term| {
        let all = term.match_expressions.iter().chain(&term.match_fields).flatten();
        1 + all.map(|one| 1 + one.values.as_ref().map_or(0, Vec::len)).sum::<usize>()
    });
    template.node_selector.len() + NODE_TAINTS * template.tolerations.len() + requirements.sum::<usize>()
}

/// Returns `1 node` or `2 nodes`.
fn nodes(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
