//! The reasons for which `/scheduler/filter` refuses a node, with their messages and label values.

/// The reason for which a pod may not go to a node.
///
/// The texts are constant: the scheduler groups nodes by them, and a text that changes from attempt to attempt would make it
/// retry the pod forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterReason {
    /// The daemon pod is for another node.
    NotTarget,
    /// The daemon pod's `nodeSelector` or required node affinity excludes the node.
    NodeSelector,
    /// The node has a taint that the daemon pod does not tolerate.
    Taint,
    /// The pod would take the room of a missing daemon pod.
    Reserved,
    /// A daemon pod that ordinary pods must wait for is not Ready.
    DaemonPodNotReady,
    /// The scheduler has seen more than the warden has.
    StaleCache,
}

impl FilterReason {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; 6] = [
        Self::NotTarget,
        Self::NodeSelector,
        Self::Taint,
        Self::Reserved,
        Self::DaemonPodNotReady,
        Self::StaleCache,
    ];

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// What the scheduler shows in the pod's events.
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

    /// Its value of the metrics' label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotTarget => "not_target",
            Self::NodeSelector => "node_selector",
            Self::Taint => "taint",
            Self::Reserved => "reserved",
            Self::DaemonPodNotReady => "not_ready",
            Self::StaleCache => "stale",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn texts_and_labels_are_distinct_and_constant() {
        let texts: BTreeSet<_> = FilterReason::ALL.iter().map(|refusal| refusal.message()).collect();
        let labels: BTreeSet<_> = FilterReason::ALL.iter().map(|refusal| refusal.label()).collect();
        assert_eq!((texts.len(), labels.len()), (6, 6));
        assert!(FilterReason::ALL.iter().enumerate().all(|(index, refusal)| refusal.index() == index));
        // They are written between quotes as they are.
        assert!(texts.iter().all(|text| !text.contains(['"', '\\', '%']) && text.starts_with("node(s) ")));
    }
}
