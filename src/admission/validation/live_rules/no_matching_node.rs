//! `no-matching-node`: a DaemonSet that none of the cluster's nodes matches.

use std::collections::BTreeMap;

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, Path};
use crate::daemonset::placement::node_should_run_daemon_pod;
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "no-matching-node",
    default_level: Level::Warn,
    finds: "a DaemonSet that none of the cluster's nodes matches",
    rationale: "The controller creates no pod, and the DaemonSet's status does not show it: it counts 0 of 0. The warning names the reason that excludes most nodes. It can be ignored if the nodes are yet to join.",
    source: "pkg/controller/daemon/daemon_controller.go (`NodeShouldRunDaemonPod`)",
    check,
};

fn check(data: &LiveData<'_>) -> Vec<Error> {
    if data.node_count == 0 || !data.matching.is_empty() {
        return Vec::new();
    }
    let template = &data.daemon_set.spec.template.spec;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (_, info) in data.cluster.nodes() {
        let placement = info.node.as_ref().map(|node| node_should_run_daemon_pod(template, node));
        if let Some(reason) = placement.and_then(|placement| placement.reason) {
            *reasons.entry(reason.to_string()).or_default() += 1;
        }
    }
    // The first by name among equals, so that the text is the same each time.
    let most = reasons.iter().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
    let most = most.map(|(reason, count)| format!(": {reason} ({})", nodes(*count))).unwrap_or_default();
    let detail = format!("none of the cluster's {} matches{most}", nodes(data.node_count));
    vec![Error::forbidden(Path::new("spec.template.spec"), detail)]
}
