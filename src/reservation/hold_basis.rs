//! The records of a hold that [`super::basis`] decides on.

use std::time::Instant;

/// The basis of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldBasis {
    /// The pod exists and waits for room.
    Pod,
    /// The pod exists and waits perhaps for something else.
    UncertainPod,
    /// A pod of the DaemonSet is leaving the node, or has left it a moment ago.
    Predecessor,
    /// The template: the DaemonSet controller is about to create the pod.
    Template,
}

impl HoldBasis {
    /// Returns true if the pod does not exist yet.
    pub fn is_unborn(self) -> bool {
        matches!(self, Self::Template | Self::Predecessor)
    }

    /// Returns true if the hold is what the pod itself would claim.
    pub fn is_proven(self) -> bool {
        self == Self::Pod
    }
}

/// The bound pod of the DaemonSet that was on the node before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Predecessor {
    /// There was none, as far as is known.
    #[default]
    None,
    /// It is there.
    Present,
    /// It has left, at this time.
    Left(Instant),
}
