//! `overlapping-selector`: a selector that matches the pods of another DaemonSet in the namespace, or the reverse.

use super::{LiveData, LiveRule};
use crate::api::field::{Error, Path};
use crate::policy::Level;
use crate::scheduling::label_selector;

pub(super) const RULE: LiveRule = LiveRule {
    id: "overlapping-selector",
    default_level: Level::Warn,
    finds: "a selector that matches the pods of another DaemonSet in the namespace, or pods that another one's selector matches",
    rationale: "The controller adopts pods without an owner that match a DaemonSet's selector, as after `kubectl delete --cascade=orphan`, and then deletes surplus pods of a node. Services and PodDisruptionBudgets that use the same labels mix the pods up too. Give each DaemonSet a label of its own.",
    source: "pkg/controller/controller_ref_manager.go (`ClaimPods`)",
    check,
};

fn check(data: &LiveData<'_>) -> Vec<Error> {
    let spec = &data.daemon_set.spec;
    let others = data.cluster.daemon_sets().filter(|(id, info)| {
        info.daemon_set.metadata.namespace == data.daemon_set.metadata.namespace
            && data.known.is_none_or(|(known, _)| known != *id)
            && !info.daemon_set.metadata.is_deleting()
    });
    let mut names: Vec<&str> = others
        .filter(|(_, info)| {
            let other = &info.daemon_set.spec;
            let matches = label_selector::matches(spec.selector.as_ref(), &other.template.metadata.labels);
            let is_matched = label_selector::matches(other.selector.as_ref(), &spec.template.metadata.labels);
            matches == Some(true) || is_matched == Some(true)
        })
        .map(|(_, info)| info.daemon_set.metadata.name.as_str())
        .collect();
    names.sort_unstable();
    let error = |name: &&str| {
        Error::invalid(Path::new("spec.selector"), &spec.selector, format!("overlaps with DaemonSet {name}"))
    };
    names.iter().map(error).collect()
}
