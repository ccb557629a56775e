//! `virtual-nodes`: a DaemonSet that matches virtual nodes, which have no machine.

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, Path};
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "virtual-nodes",
    default_level: Level::Warn,
    finds: "a DaemonSet that matches nodes labelled `type=virtual-kubelet` or `eks.amazonaws.com/compute-type=fargate`",
    rationale: "Such a node has no machine: daemon pods on it stay Pending or fail for ever. Exclude the label with a required node affinity (`NotIn`), or do not tolerate the nodes' taint.",
    source: "pkg/controller/daemon/daemon_controller.go (`NodeShouldRunDaemonPod`), which does not exclude virtual nodes",
    check,
};

const LABELS: [(&str, &str); 2] =
    [("type", "virtual-kubelet"), ("eks.amazonaws.com/compute-type", "fargate")];

fn check(data: &LiveData<'_>) -> Vec<Error> {
    let error = |(key, value): (&str, &str)| {
        let is_virtual = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(key).is_some_and(|own| own == value)
        };
        let count = data.matching.iter().filter(|(_, node)| is_virtual(&node.metadata.labels)).count();
        let detail = format!("is for {} labelled {key}={value}, where daemon pods cannot run", nodes(count));
        (count > 0).then(|| Error::forbidden(Path::new("spec.template.spec.affinity"), detail))
    };
    LABELS.into_iter().filter_map(error).collect()
}
