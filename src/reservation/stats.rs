//! Counts of holds, gates and pods for the metrics.

use super::Reservation;
use super::hold::HoldState;

/// Counts of holds, gates and pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservationStats {
    /// Holds in force, one for each DaemonSet and node.
    pub holds: usize,
    /// Missing daemon pods whose node is too small for its daemon pods.
    pub too_small: usize,
    /// Missing daemon pods for which no room is reserved, because nothing shows that they will come or their namespace has too many.
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
    /// Returns the counts. It visits every node, so once a second is enough.
    pub fn stats(&self) -> ReservationStats {
        let mut stats = ReservationStats {
            assumed_pods: self.assumed.len(),
            waiting: self.waiting.len(),
            nominated: self.nominations.len(),
            nominations_waiting: self.nominations.waiting(),
            ..ReservationStats::default()
        };
        for row in &self.nodes {
            stats.holds += row.holds.iter().filter(|hold| hold.state == HoldState::Held).count();
            stats.too_small += row.holds.iter().filter(|hold| hold.is_node_too_small).count();
            let without_basis = row.holds.iter().filter(|hold| hold.state == HoldState::NoBasis);
            stats.without_basis += without_basis.count() + row.beyond_limit;
            stats.gates_closed += row.gates.iter().filter(|gate| gate.is_closed).count();
        }
        stats
    }
}
