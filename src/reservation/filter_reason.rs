//! The reasons for which `/scheduler/filter` refuses a node, with their messages. The words that strum gives the variants are
//! values of a metric's label.

use enum_map::Enum;
use strum::{EnumIter, IntoStaticStr, VariantNames};

/// The reason for which a pod is refused on a node.
///
/// The messages are constant: the scheduler groups nodes by them, and a message that changes with each attempt would make it retry
/// the pod forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, EnumIter, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum FilterReason {
    /// The daemon pod's target is another node.
    NotTarget,
    /// The daemon pod's `nodeSelector` or required node affinity excludes the node.
    NodeSelector,
    /// The node has a taint that the daemon pod does not tolerate.
    Taint,
    /// The pod would take the room of a missing daemon pod.
    Reserved,
    /// A daemon pod that ordinary pods must wait for is not Ready.
    #[strum(serialize = "not_ready")]
    DaemonPodNotReady,
    /// The cache is behind what the scheduler has seen.
    #[strum(serialize = "stale")]
    StaleCache,
}

impl FilterReason {
    /// Returns the message that the scheduler shows in the pod's events.
    pub fn message(self) -> &'static str {
        match self {
            Self::NotTarget => "node(s) were not the daemon pod's target",
            Self::NodeSelector => "node(s) didn't match the daemon pod's node selector",
            Self::Taint => "node(s) had a taint the daemon pod didn't tolerate",
            Self::Reserved => "node(s) kept room for missing daemon pods",
            Self::DaemonPodNotReady => "node(s) waited for a required daemon pod to be ready",
            Self::StaleCache => "node(s) had changed since they were last seen",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::{IntoEnumIterator, VariantNames};

    use super::*;

    #[test]
    fn texts_and_labels_are_distinct_and_constant() {
        let texts: BTreeSet<_> = FilterReason::iter().map(FilterReason::message).collect();
        let labels: BTreeSet<_> = FilterReason::VARIANTS.iter().collect();
        assert_eq!((texts.len(), labels.len()), (6, 6));
        // They are written into JSON without escaping.
        assert!(texts.iter().all(|text| !text.contains(['"', '\\', '%']) && text.starts_with("node(s) ")));
    }
}
