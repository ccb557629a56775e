//! `no-requests`: a template that requests neither cpu nor memory.
//!
//! The scheduler weighs a pod by its requests: for a pod without any nothing reserves room, and it is the first to be
//! evicted or throttled when its node is short. Set requests, or limits, which stand in for them.
//!
//! Source: kubernetes v1.36.3 staging/src/k8s.io/component-helpers/resource/helpers.go (`PodRequests`),
//! pkg/apis/core/v1/helper/qos/qos.go.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, Path};
use crate::api::pod::ResourceRequirements;
use crate::api::quantity::Quantity;
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "no-requests",
    default: Level::Warn,
    what: "a template that requests neither cpu nor memory",
    why: "The scheduler weighs a pod by its requests: for a pod without any nothing reserves room, and it is the first to be evicted or throttled when its node is short. Set requests, or limits, which stand in for them.",
    source: "staging/src/k8s.io/component-helpers/resource/helpers.go (`PodRequests`), pkg/apis/core/v1/helper/qos/qos.go",
    check,
};

const DETAIL: &str = "no container requests cpu or memory, so nothing reserves room for the pods";

fn check(daemon_set: &DaemonSet) -> Vec<Error> {
    let spec = &daemon_set.spec.template.spec;
    let containers =
        spec.containers.iter().chain(&spec.init_containers).map(|container| &container.resources);
    if containers.chain([&spec.resources]).any(asks_for_room) {
        return Vec::new();
    }
    vec![Error::required(Path::new("spec.template.spec.containers"), DETAIL)]
}

fn asks_for_room(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().any(|name| {
        let asked = resources.requests.get(*name).or_else(|| resources.limits.get(*name));
        asked.is_some_and(|amount| *amount > Quantity::default())
    })
}
