//! `virtual-nodes`: a DaemonSet that matches virtual nodes, which have no machine.

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, ErrorList, Path};
use crate::api::node::Node;
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

/// The number of the DaemonSet's nodes with each of [`LABELS`].
#[derive(Debug, Default)]
pub(super) struct VirtualNodes([usize; LABELS.len()]);

impl VirtualNodes {
    /// Counts one of the DaemonSet's nodes.
    pub(super) fn add(&mut self, node: &Node) {
        for ((key, value), count) in LABELS.into_iter().zip(&mut self.0) {
            *count += usize::from(node.metadata.labels.get(key).is_some_and(|own| own == value));
        }
    }
}

fn check(data: &LiveData<'_>) -> ErrorList {
    let error = |((key, value), count): ((&str, &str), usize)| {
        let detail = format!("is for {} labelled {key}={value}, where daemon pods cannot run", nodes(count));
        (count > 0).then(|| Error::forbidden(Path::new("spec.template.spec.affinity"), detail))
    };
    LABELS.into_iter().zip(data.virtual_nodes.0).filter_map(error).collect()
}
