//! `no-priority-class`: a template without a priority class.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "no-priority-class",
    default_level: Level::Warn,
    finds: "a template without a priority class",
    rationale: "Daemon pods without a class have the priority of ordinary pods (unless the cluster has a default class): on a full node they wait and cannot preempt. Name a class, such as system-node-critical in kube-system.",
    source: "pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go, plugin/pkg/admission/priority/admission.go",
    check,
};

const DETAIL: &str = "without a class its pods cannot preempt ordinary pods on a full node";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let spec = &daemon_set.spec.template.spec;
    if !spec.priority_class_name.is_empty() || spec.priority.is_some() {
        return ErrorList::new();
    }
    Error::required(Path::new("spec.template.spec.priorityClassName"), DETAIL).into()
}
