//! The records that the reservation keeps of each node and of each DaemonSet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster_write::DaemonSetReference;
use super::gate::{Gate, GateKind};
use super::hold::{Hold, HoldState};
use super::node_set::NodeSet;
use super::unborn::UnbornPod;
use crate::cache::DaemonSetId;
use crate::cache::node_info::NodeInfo;
use crate::scheduling::resources::Resources;

/// The record of a node. Once refreshed, for a name without a Node only `last_refused`, `freshness` and `offered` are set.
#[derive(Debug, Default)]
pub(super) struct NodeReservation {
    /// True while the node waits for a refresh.
    pub(super) is_dirty: bool,
    /// The counts, as when the node was last refreshed.
    pub(super) counts: NodeCounts,
    /// The highest priority of the desired DaemonSets that may hold; `None` if there are none.
    pub(super) highest_desired_priority: Option<i32>,
    /// The freshness of the cache for this node.
    pub(super) freshness: NodeFreshness,
    /// The requests of the pod that made the node stale.
    pub(super) offered: Resources,
    /// The time when a pod was last refused here.
    pub(super) last_refused: Option<Instant>,
    /// The DaemonSets of which a pod is desired here, and that may hold or gate.
    pub(super) desired: Vec<DaemonSetId>,
    /// The DaemonSets that had landed here when the node was last refreshed.
    pub(super) landed: Vec<DaemonSetId>,
    /// The number of desired DaemonSets that get no hold, because their namespace has too many on this node.
    pub(super) beyond_limit: usize,
    /// The time at which the basis of a hold has to be looked at again.
    pub(super) recheck_at: Option<Instant>,
    /// The holds, in the order of [`super::packing`].
    pub(super) holds: Vec<Hold>,
    /// The pods among them that do not exist yet.
    pub(super) unborn: Vec<UnbornPod>,
    /// The gates.
    pub(super) gates: Vec<Gate>,
}

/// The counts of a node for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NodeCounts {
    /// Holds in force.
    pub(super) held: usize,
    /// Missing daemon pods for which the node is too small.
    pub(super) too_small: usize,
    /// Missing daemon pods for which no room is reserved.
    pub(super) without_basis: usize,
    /// Closed gates.
    pub(super) gates_closed: usize,
}

/// The freshness of the cache for one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum NodeFreshness {
    /// Nothing says that the cache is behind.
    #[default]
    Fresh,
    /// The cache is behind since this time: the scheduler offers the node for a pod that does not fit by the cache, or the cache
    /// lacks the Node.
    Stale(Instant),
    /// The node has been stale for `STALE_TIMEOUT`, until this time: the scheduler's sum and the cache's differ for another reason,
    /// or nobody's scheduler has offered it.
    StaleIgnored(Instant),
}

/// The time for which a stale node is refused. A lasting difference between the two sums must not block the node for good.
const STALE_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for which a node counts as fresh after that, whatever is offered: a difference that lasts costs two seconds a minute,
/// and nobody can turn the rule off for longer.
const IGNORED_FOR: Duration = Duration::from_secs(60);

impl NodeFreshness {
    /// Returns true while pods are refused on the node because the cache is behind: for `STALE_TIMEOUT`.
    pub(super) fn refuses(self, now: Instant) -> bool {
        matches!(self, Self::Stale(since) if now.saturating_duration_since(since) < STALE_TIMEOUT)
    }

    /// Returns true if the node has been stale for `STALE_TIMEOUT` and is not yet `StaleIgnored`.
    pub(super) fn is_over(self, now: Instant) -> bool {
        matches!(self, Self::Stale(_)) && !self.refuses(now)
    }

    /// Returns true once it has been `StaleIgnored` for long enough.
    pub(super) fn is_forgiven(self, now: Instant) -> bool {
        matches!(self, Self::StaleIgnored(since) if now.saturating_duration_since(since) >= IGNORED_FOR)
    }
}

impl NodeReservation {
    /// Ends the staleness if the pod that the scheduler offered now fits by the cache.
    pub(super) fn catch_up(&mut self, node: &NodeInfo) {
        if self.freshness != NodeFreshness::Fresh
            && node.allocatable.has_room_beside(&node.requested, &self.offered)
        {
            self.freshness = NodeFreshness::Fresh;
        }
    }

    /// Returns true while a hold or a gate is in force. A filter call asks this first, and for most nodes nothing else of their
    /// holds and gates.
    pub(super) fn has_hold_or_gate(&self) -> bool {
        self.counts.held > 0 || self.counts.gates_closed > 0
    }

    /// Updates `counts`.
    pub(super) fn update_counts(&mut self) {
        let mut counts = NodeCounts::default();
        for hold in &self.holds {
            counts.held += usize::from(hold.state == HoldState::Held);
            counts.too_small += usize::from(hold.is_node_too_small);
            counts.without_basis += usize::from(hold.state == HoldState::NoBasis);
        }
        counts.without_basis += self.beyond_limit;
        counts.gates_closed = self.gates.iter().filter(|gate| gate.is_closed).count();
        self.counts = counts;
    }
}

#[cfg(test)]
impl NodeReservation {
    /// Returns true if nothing is recorded of the node.
    pub(super) fn is_empty(&self) -> bool {
        let Self { is_dirty, highest_desired_priority, freshness, .. } = self;
        let is_quiet = !is_dirty && !self.has_hold_or_gate() && highest_desired_priority.is_none();
        is_quiet
            && *freshness == NodeFreshness::Fresh
            && self.offered == Resources::default()
            && self.last_refused.is_none()
            && self.desired.is_empty()
            && self.landed.is_empty()
            && self.holds.is_empty()
            && self.unborn.is_empty()
            && self.gates.is_empty()
    }
}

/// The record of a DaemonSet; empty for an id that is not given out.
#[derive(Debug, Default)]
pub(super) struct DaemonSetReservation {
    /// True if room may be reserved for it: its namespace is selected, and it is neither being deleted nor opted out.
    pub(super) may_hold: bool,
    /// True if it has too many elements to be kept whole.
    pub(super) is_too_large: bool,
    /// The gate, if ordinary pods wait for its pods to be Ready.
    pub(super) gate: Option<GateKind>,
    /// The nodes on which a pod of it is desired.
    pub(super) desired_on: NodeSet,
    /// The time at which the controller was last seen to act on a new spec.
    pub(super) observed_at: Option<Instant>,
    /// The time at which the controller was last seen to fail to create a pod.
    pub(super) failed_at: Option<Instant>,
    /// The DaemonSet's names, for writes.
    pub(super) reference: Arc<DaemonSetReference>,
}

impl DaemonSetReservation {
    /// Returns true if it may hold or gate.
    pub(super) fn restricts_nodes(&self) -> bool {
        self.may_hold || self.gate.is_some()
    }
}
