//! `no-matching-node`: a DaemonSet that none of the cluster's nodes matches.

use std::collections::BTreeMap;

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, ErrorList, Path};
use crate::daemonset::placement::Reason;
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "no-matching-node",
    default_level: Level::Warn,
    finds: "a DaemonSet that none of the cluster's nodes matches",
    rationale: "The controller creates no pod, and the DaemonSet's status does not show it: it counts 0 of 0. The warning names the reason that excludes most nodes. It can be ignored if the nodes are yet to join.",
    source: "pkg/controller/daemon/daemon_controller.go (`NodeShouldRunDaemonPod`)",
    check,
};

/// The reasons that exclude the cluster's nodes, each with their number.
#[derive(Debug, Default)]
pub(super) struct Exclusions(BTreeMap<String, usize>);

impl Exclusions {
    /// Counts a node that is excluded for `reason`.
    pub(super) fn add(&mut self, reason: &Reason<'_>) {
        *self.0.entry(reason.to_string()).or_default() += 1;
    }
}

fn check(data: &LiveData<'_>) -> ErrorList {
    if data.node_count == 0 || data.matching > 0 {
        return ErrorList::new();
    }
    // The first by name among equals, so that the text is the same each time.
    let most = data.exclusions.0.iter().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
    let most = most.map(|(reason, count)| format!(": {reason} ({})", nodes(*count))).unwrap_or_default();
    let detail = format!("none of the cluster's {} matches{most}", nodes(data.node_count));
    Error::forbidden(Path::new("spec.template.spec"), detail).into()
}
