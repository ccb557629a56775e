//! Counts of holds, gates and pods for the metrics.

use super::Reservation;
use super::node_reservation::NodeReservation;

/// Counts of holds, gates and pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservationStats {
    /// Holds in force, one for each DaemonSet and node.
    pub holds: usize,
    /// Missing daemon pods whose node is too small for its daemon pods.
    pub too_small: usize,
    /// Missing daemon pods for which no room is reserved, because nothing shows that they will come or their namespace has too
    /// many.
    pub without_basis: usize,
    /// Closed gates, one for each DaemonSet and node.
    pub gates_closed: usize,
    /// Assumed pods.
    pub assumed_pods: usize,
    /// Pods that are refused on every node and wait.
    pub waiting: usize,
    /// Daemon pods that this process has nominated to their node.
    pub nominated: usize,
    /// Daemon pods that could be nominated and are not yet.
    pub nominations_waiting: usize,
}

impl Reservation {
    /// Returns the counts, as when each node was last refreshed. It visits every node, so once a second is enough.
    pub fn stats(&self) -> ReservationStats {
        let mut stats = ReservationStats {
            assumed_pods: self.assumed.len(),
            waiting: self.waiting.len(),
            nominated: self.nominations.len(),
            nominations_waiting: self.nominations.waiting(),
            ..ReservationStats::default()
        };
        for NodeReservation { counts, .. } in &self.nodes {
            stats.holds += counts.held;
            stats.too_small += counts.too_small;
            stats.without_basis += counts.without_basis;
            stats.gates_closed += counts.gates_closed;
        }
        stats
    }
}
