//! `critical-class-quota`: a system-critical class in a namespace where no quota admits it.

use super::missing_priority_class::SYSTEM_CLASSES;
use super::{LiveData, LiveRule};
use crate::admission::quota;
use crate::api::field::{Error, Path};
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "critical-class-quota",
    default: Level::Warn,
    what: "a system-critical priority class outside kube-system where no ResourceQuota is for pods of that class",
    why: "GKE and other clusters configure the apiserver so that such pods are refused unless a ResourceQuota of the namespace matches their class. Create one, scoped to the class; where the cluster has no such limit it does no harm.",
    source: "staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go (`CheckRequest`, limitedResources)",
    check,
};

fn check(live: &LiveData<'_>) -> Vec<Error> {
    let namespace = live.daemon_set.metadata.namespace.as_str();
    let class = live.daemon_set.spec.template.spec.priority_class_name.as_str();
    if !SYSTEM_CLASSES.contains(&class) || namespace == "kube-system" {
        return Vec::new();
    }
    if live.cluster.resource_quotas(namespace).any(|quota| quota::is_for_class(quota, class)) {
        return Vec::new();
    }
    let detail = format!(
        "no ResourceQuota in {namespace} is scoped to this class: clusters that limit it, as GKE does, refuse the pods"
    );
    vec![Error::invalid(Path::new("spec.template.spec.priorityClassName"), &class, detail)]
}
