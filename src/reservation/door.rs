//! The doors: the ways by which a pod comes before the reservation.

use enum_map::Enum;
use strum::{IntoStaticStr, VariantNames};

/// A door. The words are values of a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Door {
    /// `/scheduler/filter`: a scheduler asks for the nodes that it may choose for a pod.
    Filter,
    /// `/bind`: an apiserver asks if a pod may be bound to the node that a scheduler has chosen.
    Bind,
}
