//! `no-matching-node`: a DaemonSet that is for none of the cluster's nodes.

use std::collections::BTreeMap;

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, Path};
use crate::daemonset::placement::node_should_run_daemon_pod;
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "no-matching-node",
    default: Level::Warn,
    what: "a DaemonSet that none of the cluster's nodes matches",
    why: "No pod is created, and nothing else says so: the DaemonSet's status counts 0 of 0. The warning names what excludes most nodes. That is fine where the nodes are still to come.",
    source: "pkg/controller/daemon/daemon_controller.go (`NodeShouldRunDaemonPod`)",
    check,
};

fn check(live: &LiveData<'_>) -> Vec<Error> {
    if live.node_count == 0 || !live.matching.is_empty() {
        return Vec::new();
    }
    let template = &live.daemon_set.spec.template.spec;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (_, state) in live.cluster.nodes() {
        let placement = state.node.as_ref().map(|node| node_should_run_daemon_pod(template, node));
        if let Some(reason) = placement.and_then(|placement| placement.reason) {
            *reasons.entry(reason.to_string()).or_default() += 1;
        }
    }
    // Of equally many the first by name, so that the text is the same each time.
    let most = reasons.iter().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
    let most = most.map(|(reason, count)| format!(": {reason} ({})", nodes(*count))).unwrap_or_default();
    let detail = format!("none of the cluster's {} matches{most}", nodes(live.node_count));
    vec![Error::forbidden(Path::new("spec.template.spec"), detail)]
}
