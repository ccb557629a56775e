//! `missing-priority-class`: a priority class that does not exist.

use super::{LiveData, LiveRule};
use crate::api::field::{Error, Path};
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "missing-priority-class",
    default: Level::Warn,
    what: "a priority class that does not exist",
    why: "Every pod is refused at its creation, and no pod runs anywhere, until the PriorityClass is created.",
    source: "plugin/pkg/admission/priority/admission.go (`admitPod`)",
    check,
};

/// Made by the apiserver itself, which makes them again should somebody delete them.
pub(super) const SYSTEM_CLASSES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

fn check(live: &LiveData<'_>) -> Vec<Error> {
    let class = live.daemon_set.spec.template.spec.priority_class_name.as_str();
    let exists =
        class.is_empty() || SYSTEM_CLASSES.contains(&class) || live.cluster.priority_class(class).is_some();
    if exists {
        return Vec::new();
    }
    let detail = "no PriorityClass of this name exists: every pod would be refused";
    vec![Error::invalid(Path::new("spec.template.spec.priorityClassName"), &class, detail)]
}
