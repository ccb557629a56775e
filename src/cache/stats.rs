//! How much of everything there is: what metrics show.

use super::Cache;
use crate::reservation::hold::HoldState;

/// Numbers of things.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Nodes that exist.
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
    /// Pairs of a DaemonSet and a node for which room is kept.
    pub holds: usize,
    /// Pairs of a DaemonSet and a node where ordinary pods wait for the daemon pod to be Ready.
    pub closed_gates: usize,
    /// Pods that are let through and not seen bound.
    pub ledger: usize,
    /// Pods that are refused everywhere and wait.
    pub waiting: usize,
    /// Daemon pods that this process has nominated to their node.
    pub nominated: usize,
    /// Daemon pods that could be nominated and are not yet.
    pub nominations_waiting: usize,
}

impl Cache {
    /// Counts everything.
    pub fn census(&self) -> CacheStats {
        let mut census = CacheStats {
            pods: self.pods.len(),
            namespaces: self.namespaces.len(),
            priority_classes: self.priority_classes.len(),
            limit_ranges: self.limit_ranges.len(),
            runtime_classes: self.runtime_classes.len(),
            resource_quotas: self.resource_quotas.len(),
            ledger: self.ledger_len(),
            waiting: self.waiting_len(),
            nominated: self.nominations.len(),
            nominations_waiting: self.nominations.waiting(),
            ..CacheStats::default()
        };
        for (_, node) in self.nodes.iter() {
            census.nodes += usize::from(node.node.is_some());
            census.holds += node.holds.iter().filter(|hold| hold.state == HoldState::Held).count();
            census.closed_gates += node.gates.iter().filter(|gate| gate.is_closed).count();
        }
        for (_, info) in &self.daemon_sets {
            if &*info.group == "apps" {
                census.daemon_sets += 1;
            } else {
                census.other_daemon_sets += 1;
            }
        }
        census
    }
}
