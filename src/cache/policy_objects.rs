//! Events of namespaces, priority classes, limit ranges, runtime classes and quotas. All but quotas change the demand of
//! DaemonSets' pods, or the DaemonSets for which room may be reserved.

use std::collections::BTreeMap;

use super::Cache;
use super::change::Change;
use crate::api::pod::{ResourceList, ResourceRequirements};
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};

impl Cache {
    /// Returns the names of all namespaces, to delete those that a relist did not bring.
    pub fn namespace_names(&self) -> impl Iterator<Item = &String> {
        self.namespaces.keys()
    }

    /// Returns the names of all priority classes, to delete those that a relist did not bring.
    pub fn priority_class_names(&self) -> impl Iterator<Item = &String> {
        self.priority_classes.keys()
    }

    /// Returns the namespace and name of each limit range, to delete those that a relist did not bring.
    pub fn limit_range_names(&self) -> impl Iterator<Item = &(String, String)> {
        self.limit_ranges.keys()
    }

    /// Returns the names of all runtime classes, to delete those that a relist did not bring.
    pub fn runtime_class_names(&self) -> impl Iterator<Item = &String> {
        self.runtime_classes.keys()
    }

    /// Returns the namespace and name of each quota, to delete those that a relist did not bring.
    pub fn resource_quota_names(&self) -> impl Iterator<Item = &(String, String)> {
        self.resource_quotas.keys()
    }

    /// Adds or changes a namespace.
    pub fn apply_namespace(&mut self, namespace: Namespace) {
        let name = namespace.metadata.name.clone();
        if self.namespaces.get(&name) != Some(&namespace) {
            self.namespaces.insert(name.clone(), namespace);
            self.changes.push(Change::NamespaceChanged(name));
        }
    }

    /// Deletes a namespace.
    pub fn delete_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.changes.push(Change::NamespaceChanged(name.to_owned()));
        }
    }

    /// Adds or changes a priority class.
    pub fn apply_priority_class(&mut self, class: PriorityClass) {
        let name = class.metadata.name.clone();
        if self.priority_classes.get(&name) != Some(&class) {
            self.priority_classes.insert(name, class);
            self.recheck_daemon_sets(|_| true);
        }
    }

    /// Deletes a priority class.
    pub fn delete_priority_class(&mut self, name: &str) {
        if self.priority_classes.remove(name).is_some() {
            self.recheck_daemon_sets(|_| true);
        }
    }

    /// Adds or changes a limit range.
    pub fn apply_limit_range(&mut self, range: LimitRange) {
        let namespace = range.metadata.namespace.clone();
        let key = (namespace.clone(), range.metadata.name.clone());
        if self.limit_ranges.get(&key) != Some(&range) {
            self.limit_ranges.insert(key, range);
            self.recheck_daemon_sets(|daemon_set| daemon_set.metadata.namespace == namespace);
        }
    }

    /// Deletes a limit range.
    pub fn delete_limit_range(&mut self, namespace: &str, name: &str) {
        if self.limit_ranges.remove(&(namespace.to_owned(), name.to_owned())).is_some() {
            self.recheck_daemon_sets(|daemon_set| daemon_set.metadata.namespace == namespace);
        }
    }

    /// Adds or changes a runtime class.
    pub fn apply_runtime_class(&mut self, class: RuntimeClass) {
        let name = class.metadata.name.clone();
        if self.runtime_classes.get(&name) != Some(&class) {
            self.runtime_classes.insert(name, class);
            self.recheck_daemon_sets(|_| true);
        }
    }

    /// Deletes a runtime class.
    pub fn delete_runtime_class(&mut self, name: &str) {
        if self.runtime_classes.remove(name).is_some() {
            self.recheck_daemon_sets(|_| true);
        }
    }

    /// Adds or changes a quota.
    pub fn apply_resource_quota(&mut self, quota: ResourceQuota) {
        let namespace = quota.metadata.namespace.clone();
        let key = (namespace.clone(), quota.metadata.name.clone());
        if self.resource_quotas.get(&key) != Some(&quota) {
            self.resource_quotas.insert(key, quota);
            self.recheck_admission(&namespace);
        }
    }

    /// Deletes a quota.
    pub fn delete_resource_quota(&mut self, namespace: &str, name: &str) {
        if self.resource_quotas.remove(&(namespace.to_owned(), name.to_owned())).is_some() {
            self.recheck_admission(namespace);
        }
    }

    /// Returns the default limits and requests that the limit ranges of a namespace give to containers. If several name a resource,
    /// the first range by name counts.
    pub(super) fn limit_range_defaults(&self, namespace: &str) -> ResourceRequirements {
        let mut defaults = ResourceRequirements::default();
        let first = (namespace.to_owned(), String::new());
        let ranges = self.limit_ranges.range(first..).take_while(|((own, _), _)| own == namespace);
        for item in ranges.flat_map(|(_, range)| &range.spec.limits).filter(|item| item.kind == "Container") {
            add_absent(&mut defaults.limits, &item.default);
            add_absent(&mut defaults.requests, &item.default_request);
            // The apiserver fills a range's own default requests from its default limits.
            add_absent(&mut defaults.requests, &item.default);
        }
        defaults
    }

    /// Returns the overhead that a runtime class adds to a pod; `None` if the class is not cached.
    pub(super) fn runtime_class_overhead(&self, name: &str) -> Option<&ResourceList> {
        self.runtime_classes.get(name).map(|class| &class.overhead.pod_fixed)
    }

    /// Returns true if a pod may name this class, or names none.
    pub(super) fn class_exists(&self, class: &str) -> bool {
        matches!(class, "" | "system-cluster-critical" | "system-node-critical")
            || self.priority_classes.contains_key(class)
            || !self.knows_priority_classes()
    }

    /// Returns true if the priority classes are watched: each cluster has two of its own.
    pub(super) fn knows_priority_classes(&self) -> bool {
        !self.priority_classes.is_empty()
    }

    /// Returns the priority that admission gives to a pod with this class; the default one if `class` is empty.
    pub(super) fn priority_of_class(&self, class: &str) -> i32 {
        if !class.is_empty() {
            return match class {
                "system-cluster-critical" => 2_000_000_000,
                "system-node-critical" => 2_000_001_000,
                _ => self.priority_classes.get(class).map_or(0, |class| class.value),
            };
        }
        let defaults = self.priority_classes.values().filter(|class| class.global_default);
        defaults.map(|class| class.value).min().unwrap_or(0)
    }
}

fn add_absent(to: &mut BTreeMap<String, crate::api::quantity::Quantity>, from: &ResourceList) {
    for (name, amount) in from {
        to.entry(name.clone()).or_insert(*amount);
    }
}
