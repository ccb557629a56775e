//! The numbers of holds, gates and pods that the metrics show.

use super::Reservation;
use super::hold::HoldState;

/// Numbers of holds, gates and pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservationStats {
    /// Pairs of a DaemonSet and a node for which room is kept.
    pub holds: usize,
    /// Pairs of a DaemonSet and a node where ordinary pods wait for the daemon pod to be Ready.
    pub gates_closed: usize,
    /// Pods that were let through and not seen bound.
    pub assumed_pods: usize,
    /// Pods that are refused everywhere and wait.
    pub waiting: usize,
    /// Daemon pods that this process has nominated to their node.
    pub nominated: usize,
    /// Daemon pods that could be nominated and are not yet.
    pub nominations_waiting: usize,
}

impl Reservation {
    /// Counts through every node: once a second is enough.
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
            stats.gates_closed += row.gates.iter().filter(|gate| gate.is_closed).count();
        }
        stats
    }
}
