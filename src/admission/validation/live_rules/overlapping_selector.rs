//! `overlapping-selector`: a selector that matches the pods of another DaemonSet in the namespace, or the reverse.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::size::requirements;
use super::{LiveData, LiveRule, known};
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::{Cache, DaemonSetId};
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

/// The DaemonSets that are compared for each hold of the cache's lock. A usual one takes a microsecond, and one with the most
/// requirements and the longest keys twenty.
pub(super) const BATCH: usize = 64;
/// The most requirements of a selector that is compared. Selectors have a few, and all labels of a pod are compared with each.
const MAX_REQUIREMENTS: usize = 64;
/// The most names that are kept: the faults show fewer.
const MAX_NAMES: usize = 1_000;

/// The names of the DaemonSets that overlap.
#[derive(Debug, Default)]
pub(super) struct Overlaps(Vec<String>);

impl Overlaps {
    /// Returns the other DaemonSets of the namespace.
    pub(super) fn others(cluster: &Cache, group: &str, daemon_set: &DaemonSet) -> Vec<DaemonSetId> {
        let known = known(cluster, group, daemon_set).map(|(id, _)| id);
        let is_other = |id: DaemonSetId, info: &DaemonSetInfo| {
            info.daemon_set.metadata.namespace == daemon_set.metadata.namespace
                && known != Some(id)
                && !info.daemon_set.metadata.is_deleting()
        };
        cluster.daemon_sets().filter(|(id, info)| is_other(*id, info)).map(|(id, _)| id).collect()
    }

    /// Adds those of `others` whose selector or pods overlap with those of `daemon_set`.
    pub(super) fn add(&mut self, cluster: &Cache, daemon_set: &DaemonSet, others: &[DaemonSetId]) {
        for info in others.iter().filter_map(|id| cluster.daemon_set_if_known(*id)) {
            let (own, other) = (&daemon_set.spec, &info.daemon_set.spec);
            let overlaps = matches(own.selector.as_ref(), &other.template.metadata.labels)
                || matches(other.selector.as_ref(), &own.template.metadata.labels);
            if overlaps && self.0.len() < MAX_NAMES {
                self.0.push(info.daemon_set.metadata.name.clone());
            }
        }
    }
}

fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let is_usual = selector.is_some_and(|selector| requirements(selector) <= MAX_REQUIREMENTS);
    is_usual && label_selector::matches(selector, labels) == Some(true)
}

fn check(data: &LiveData<'_>) -> ErrorList {
    let selector = &data.daemon_set.spec.selector;
    let mut names: Vec<&str> = data.overlaps.0.iter().map(String::as_str).collect();
    names.sort_unstable();
    let error = |name: &&str| {
        Error::invalid(Path::new("spec.selector"), selector, format!("overlaps with DaemonSet {name}"))
    };
    names.iter().map(error).collect()
}
