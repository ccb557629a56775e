//! `no-requests`: a template that requests neither cpu nor memory.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::api::pod::ResourceRequirements;
use crate::api::quantity::Quantity;
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "no-requests",
    default_level: Level::Warn,
    finds: "a template that requests neither cpu nor memory",
    rationale: "The scheduler places a pod by its requests. Nothing is reserved for a pod without requests, and it is the first to be evicted or throttled when its node runs short. Set requests, or limits, from which requests are defaulted.",
    source: "staging/src/k8s.io/component-helpers/resource/helpers.go (`PodRequests`), pkg/apis/core/v1/helper/qos/qos.go",
    check,
};

const DETAIL: &str = "no container requests cpu or memory, so nothing reserves room for the pods";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let spec = &daemon_set.spec.template.spec;
    let containers =
        spec.containers.iter().chain(&spec.init_containers).map(|container| &container.resources);
    if containers.chain([&spec.resources]).any(requests_resources) {
        return ErrorList::new();
    }
    Error::required(Path::new("spec.template.spec.containers"), DETAIL).into()
}

fn requests_resources(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().any(|name| {
        let amount = resources.requests.get(*name).or_else(|| resources.limits.get(*name));
        amount.is_some_and(|amount| *amount > Quantity::default())
    })
}
