//! `node-name-in-template`: `spec.nodeName` in the template.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "node-name-in-template",
    default_level: Level::Warn,
    finds: "`spec.nodeName` in the template",
    rationale: "The DaemonSet then runs on that one node only, and its pod bypasses the scheduler. Select nodes by nodeSelector.",
    source: "pkg/controller/daemon/daemon_controller.go (`NodeShouldRunDaemonPod`)",
    check,
};

const DETAIL: &str = "it confines the DaemonSet to one node and bypasses the scheduler; use nodeSelector";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    if daemon_set.spec.template.spec.node_name.is_empty() {
        return ErrorList::new();
    }
    Error::forbidden(Path::new("spec.template.spec.nodeName"), DETAIL).into()
}
