//! The records that the reservation keeps of each node and of each DaemonSet.

use std::time::{Duration, Instant};

use super::cluster_write::HoldSubject;
use super::gate::{Gate, GateKind};
use super::hold::{Hold, HoldState};
use crate::cache::DaemonSetId;
use crate::cache::node_info::NodeInfo;
use crate::scheduling::resources::Resources;

/// The record of a node; empty for a name without a Node, but for what a call of the scheduler leaves there.
#[derive(Debug, Default)]
pub(super) struct NodeReservation {
    /// True while the node waits to be worked out again.
    pub(super) is_dirty: bool,
    /// True while a hold or a gate is in force: the one thing that a call looks at first.
    pub(super) has_hold_or_gate: bool,
    /// The highest priority among `desired` of those that may hold; none where there is no Node.
    pub(super) highest_desired_priority: Option<i32>,
    /// The age of our view of the node.
    pub(super) freshness: NodeFreshness,
    /// The requests of the pod that the scheduler offered the node to although it does not fit in our view.
    pub(super) offered: Resources,
    /// The time when a pod was last refused here.
    pub(super) last_refused: Option<Instant>,
    /// DaemonSets that a pod of is to run here and that may hold, or gate.
    pub(super) desired: Vec<DaemonSetId>,
    /// Room that is kept here, the most important daemon pod first.
    pub(super) holds: Vec<Hold>,
    /// Daemon pods that ordinary pods wait for here.
    pub(super) gates: Vec<Gate>,
}

/// The age of our view of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum NodeFreshness {
    /// What the scheduler offered fits what we see.
    #[default]
    Fresh,
    /// The scheduler has offered the node to a pod that does not fit in what we see, first then.
    Stale(Instant),
    /// It has been so for too long: a difference in accounting, not in age.
    StaleIgnored,
}

/// For how long a node is refused because our view of it is behind: a difference in accounting must not block it for good.
const STALE_TIMEOUT: Duration = Duration::from_secs(2);

impl NodeFreshness {
    /// True while the node is refused for it.
    pub(super) fn refuses(self, now: Instant) -> bool {
        matches!(self, Self::Stale(since) if now.saturating_duration_since(since) < STALE_TIMEOUT)
    }

    /// True once it has been refused for too long, until that is noted.
    pub(super) fn is_over(self, now: Instant) -> bool {
        matches!(self, Self::Stale(_)) && !self.refuses(now)
    }
}

impl NodeReservation {
    /// Notes that something has changed: once what the scheduler offered fits in our view, that is not behind any more.
    pub(super) fn catch_up(&mut self, node: &NodeInfo) {
        if self.freshness != NodeFreshness::Fresh
            && node.allocatable.has_room_beside(&node.requested, &self.offered)
        {
            self.freshness = NodeFreshness::Fresh;
        }
    }

    /// Works out whether a hold or a gate is in force.
    pub(super) fn update_has_hold_or_gate(&mut self) {
        self.has_hold_or_gate = self.holds.iter().any(|hold| hold.state == HoldState::Held)
            || self.gates.iter().any(|gate| gate.is_closed);
    }
}

#[cfg(test)]
impl NodeReservation {
    /// Returns true if nothing is recorded of the node.
    pub(super) fn is_empty(&self) -> bool {
        let Self { is_dirty, has_hold_or_gate, highest_desired_priority, freshness, .. } = self;
        let is_quiet = !is_dirty && !has_hold_or_gate && highest_desired_priority.is_none();
        is_quiet
            && *freshness == NodeFreshness::Fresh
            && self.offered == Resources::default()
            && self.last_refused.is_none()
            && self.desired.is_empty()
            && self.holds.is_empty()
            && self.gates.is_empty()
    }
}

/// The record of a DaemonSet; empty where the id is not given out.
#[derive(Debug, Default)]
pub(super) struct DaemonSetReservation {
    /// True if room may be kept for it: its namespace may hold, it is not being deleted and nobody opted out.
    pub(super) may_hold: bool,
    /// The gate that it asks for, where ordinary pods wait for its pods to be Ready.
    pub(super) gate: Option<GateKind>,
    /// The DaemonSet as writes name it, without a node.
    pub(super) subject: HoldSubject,
}

impl DaemonSetReservation {
    /// True if anything is kept from ordinary pods for it: room, or a node where it is not Ready.
    pub(super) fn restricts_nodes(&self) -> bool {
        self.may_hold || self.gate.is_some()
    }
}
