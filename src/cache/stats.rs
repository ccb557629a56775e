//! Counts of the objects, for the metrics.

use super::Cache;

/// The number of cached objects of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Nodes that have a Node object.
    pub nodes: usize,
    /// Pods, ended ones too.
    pub pods: usize,
    /// DaemonSets of `apps`.
    pub daemon_sets: usize,
    /// DaemonSets of other groups.
    pub other_daemon_sets: usize,
    /// Namespaces.
    pub namespaces: usize,
    /// Priority classes.
    pub priority_classes: usize,
    /// Limit ranges.
    pub limit_ranges: usize,
    /// Runtime classes.
    pub runtime_classes: usize,
    /// Quotas.
    pub resource_quotas: usize,
    /// DaemonSets that have too many elements to be kept whole.
    pub too_large: usize,
    /// DaemonSets of which the controller last failed to create a pod.
    pub failing_daemon_sets: usize,
}

impl Cache {
    /// Returns the counts. It visits every node and DaemonSet, so call it at most once a second.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats {
            pods: self.pods.len(),
            namespaces: self.namespaces.len(),
            priority_classes: self.priority_classes.len(),
            limit_ranges: self.limit_ranges.len(),
            runtime_classes: self.runtime_classes.len(),
            resource_quotas: self.resource_quotas.len(),
            ..CacheStats::default()
        };
        for (_, node) in self.nodes.iter() {
            stats.nodes += usize::from(node.node.is_some());
        }
        for (_, info) in self.daemon_sets() {
            stats.too_large += usize::from(info.daemon_set.is_too_large);
            stats.failing_daemon_sets += usize::from(info.creation_has_failed());
            if &*info.group == "apps" {
                stats.daemon_sets += 1;
            } else {
                stats.other_daemon_sets += 1;
            }
        }
        stats
    }
}
