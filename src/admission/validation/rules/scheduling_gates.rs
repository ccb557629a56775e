//! `scheduling-gates`: scheduling gates in the template.
//!
//! Every pod, on every node and after every restart, waits until somebody removes its gates. Make sure that somebody
//! does.
//!
//! Source: kubernetes v1.36.3 pkg/scheduler/framework/plugins/schedulinggates/scheduling_gates.go.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "scheduling-gates",
    default: Level::Warn,
    what: "scheduling gates in the template",
    why: "Every pod, on every node and after every restart, waits until somebody removes its gates. Make sure that somebody does.",
    source: "pkg/scheduler/framework/plugins/schedulinggates/scheduling_gates.go",
    check,
};

const DETAIL: &str = "every pod waits until somebody removes its gates";

fn check(daemon_set: &DaemonSet) -> Vec<Error> {
    if daemon_set.spec.template.spec.scheduling_gates.is_empty() {
        return Vec::new();
    }
    vec![Error::forbidden(Path::new("spec.template.spec.schedulingGates"), DETAIL)]
}
