//! `critical-class-quota`: a system-critical class in a namespace where no quota admits it.

use super::missing_priority_class::SYSTEM_CLASSES;
use super::{LiveData, LiveRule};
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "critical-class-quota",
    default_level: Level::Warn,
    finds: "a system-critical priority class outside kube-system without a ResourceQuota that is scoped to that class",
    rationale: "GKE and other clusters configure the apiserver to refuse such pods unless a ResourceQuota of the namespace matches their class. Create a quota that is scoped to the class; in a cluster without this limit it does no harm.",
    source: "staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go (`CheckRequest`, limitedResources)",
    check,
};

fn check(data: &LiveData<'_>) -> ErrorList {
    let namespace = data.daemon_set.metadata.namespace.as_str();
    let class = data.daemon_set.spec.template.spec.priority_class_name.as_str();
    if !SYSTEM_CLASSES.contains(&class) || namespace == "kube-system" {
        return ErrorList::new();
    }
    if data.class_has_quota {
        return ErrorList::new();
    }
    let detail = format!(
        "no ResourceQuota in {namespace} is scoped to this class: clusters that limit it, as GKE does, refuse the pods"
    );
    Error::invalid(Path::new("spec.template.spec.priorityClassName"), &class, detail).into()
}
