//! `overlapping-selector`: another DaemonSet of the namespace whose selector takes these pods, or whose pods this one takes.

use super::{LiveData, LiveRule};
use crate::api::field::{Error, Path};
use crate::policy::Level;
use crate::scheduling::label_selector;

pub(super) const RULE: LiveRule = LiveRule {
    id: "overlapping-selector",
    default: Level::Warn,
    what: "a selector that matches the pods of another DaemonSet in the namespace, or pods that another one's selector matches",
    why: "A DaemonSet adopts pods that match its selector as soon as they have no owner, as after `kubectl delete --cascade=orphan`, and then deletes what is one too many on a node. Services and budgets that use the same labels mix them up too. Give each DaemonSet a label of its own.",
    source: "pkg/controller/controller_ref_manager.go (`ClaimPods`)",
    check,
};

fn check(live: &LiveData<'_>) -> Vec<Error> {
    let spec = &live.daemon_set.spec;
    let others = live.cluster.daemon_sets().filter(|(id, info)| {
        info.daemon_set.metadata.namespace == live.daemon_set.metadata.namespace
            && live.known.is_none_or(|(known, _)| known != *id)
            && !info.daemon_set.metadata.is_deleting()
    });
    let mut names: Vec<&str> = others
        .filter(|(_, info)| {
            let other = &info.daemon_set.spec;
            let takes = label_selector::matches(spec.selector.as_ref(), &other.template.metadata.labels);
            let is_taken = label_selector::matches(other.selector.as_ref(), &spec.template.metadata.labels);
            takes == Some(true) || is_taken == Some(true)
        })
        .map(|(_, info)| info.daemon_set.metadata.name.as_str())
        .collect();
    names.sort_unstable();
    let error = |name: &&str| {
        Error::invalid(Path::new("spec.selector"), &spec.selector, format!("overlaps with DaemonSet {name}"))
    };
    names.iter().map(error).collect()
}
