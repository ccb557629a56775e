//! `missing-priority-class`: a priority class that does not exist.

use super::{LiveData, LiveRule};
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "missing-priority-class",
    default_level: Level::Warn,
    finds: "a priority class that does not exist",
    rationale: "The apiserver refuses every pod until the PriorityClass is created, so no pod runs on any node.",
    source: "plugin/pkg/admission/priority/admission.go (`admitPod`)",
    check,
};

/// Classes that exist in every cluster: the apiserver creates them, and creates them again if they are deleted.
pub(super) const SYSTEM_CLASSES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

fn check(data: &LiveData<'_>) -> ErrorList {
    let class = data.daemon_set.spec.template.spec.priority_class_name.as_str();
    if class.is_empty() || SYSTEM_CLASSES.contains(&class) || data.class_exists {
        return ErrorList::new();
    }
    let detail = "no PriorityClass of this name exists: every pod would be refused";
    Error::invalid(Path::new("spec.template.spec.priorityClassName"), &class, detail).into()
}
