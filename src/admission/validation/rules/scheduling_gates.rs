//! `scheduling-gates`: scheduling gates in the template.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "scheduling-gates",
    default_level: Level::Warn,
    finds: "scheduling gates in the template",
    rationale: "Every new pod, on every node, waits until its gates are removed. Make sure that a controller removes them.",
    source: "pkg/scheduler/framework/plugins/schedulinggates/scheduling_gates.go",
    check,
};

const DETAIL: &str = "every pod waits until its gates are removed";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    if daemon_set.spec.template.spec.scheduling_gates.is_empty() {
        return ErrorList::new();
    }
    Error::forbidden(Path::new("spec.template.spec.schedulingGates"), DETAIL).into()
}
