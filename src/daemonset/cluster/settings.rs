//! Objects that change what others weigh or whether they count: namespaces, priority classes, limit ranges, runtime classes
//! and quotas.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Cluster;
use crate::scheduling::object::{Metadata, or_default};
use crate::scheduling::pod::{ResourceList, ResourceRequirements};

/// The part of `Namespace` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// Its metadata; node selectors are annotations.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
}

/// The part of `PriorityClass` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PriorityClass {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The priority of its pods.
    #[serde(deserialize_with = "or_default")]
    pub value: i32,
    /// Whether pods without a class get it.
    #[serde(deserialize_with = "or_default")]
    pub global_default: bool,
}

/// The part of `LimitRange` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitRange {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// Its limits.
    #[serde(deserialize_with = "or_default")]
    pub spec: LimitRangeSpec,
}

/// The part of `LimitRangeSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LimitRangeSpec {
    /// One a type.
    #[serde(deserialize_with = "or_default")]
    pub limits: Vec<LimitRangeItem>,
}

/// The part of `LimitRangeItem` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitRangeItem {
    /// `Container`, `Pod` or `PersistentVolumeClaim`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Default limits.
    #[serde(deserialize_with = "or_default")]
    pub default: ResourceList,
    /// Default requests.
    #[serde(deserialize_with = "or_default")]
    pub default_request: ResourceList,
}

/// The part of `RuntimeClass` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeClass {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What it adds to a pod.
    #[serde(deserialize_with = "or_default")]
    pub overhead: Overhead,
}

/// The part of `Overhead` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Overhead {
    /// The same for every pod.
    #[serde(deserialize_with = "or_default")]
    pub pod_fixed: ResourceList,
}

/// The part of `ResourceQuota` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuota {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What it limits.
    #[serde(deserialize_with = "or_default")]
    pub spec: ResourceQuotaSpec,
}

/// The part of `ResourceQuotaSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuotaSpec {
    /// The most of each resource.
    #[serde(deserialize_with = "or_default")]
    pub hard: ResourceList,
    /// Which pods it counts, by name.
    #[serde(deserialize_with = "or_default")]
    pub scopes: Vec<String>,
    /// Which pods it counts, by expression.
    #[serde(deserialize_with = "or_default")]
    pub scope_selector: ScopeSelector,
}

/// `ScopeSelector`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSelector {
    /// All must match.
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Vec<ScopeSelectorRequirement>,
}

/// `ScopedResourceSelectorRequirement`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSelectorRequirement {
    /// Such as `PriorityClass`.
    #[serde(deserialize_with = "or_default")]
    pub scope_name: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[serde(deserialize_with = "or_default")]
    pub operator: String,
    /// Such as names of priority classes.
    #[serde(deserialize_with = "or_default")]
    pub values: Vec<String>,
}

impl Cluster {
    /// The names of all namespaces: here and below, what a relist did not bring is gone.
    pub fn namespace_names(&self) -> impl Iterator<Item = &String> {
        self.namespaces.keys()
    }

    /// The names of all priority classes.
    pub fn priority_class_names(&self) -> impl Iterator<Item = &String> {
        self.priority_classes.keys()
    }

    /// The namespaces and names of all limit ranges.
    pub fn limit_range_names(&self) -> impl Iterator<Item = &(String, String)> {
        self.limit_ranges.keys()
    }

    /// The names of all runtime classes.
    pub fn runtime_class_names(&self) -> impl Iterator<Item = &String> {
        self.runtime_classes.keys()
    }

    /// The namespaces and names of all quotas.
    pub fn resource_quota_names(&self) -> impl Iterator<Item = &(String, String)> {
        self.resource_quotas.keys()
    }

    /// A namespace was added or changed.
    pub fn apply_namespace(&mut self, namespace: Namespace) {
        let name = namespace.metadata.name.clone();
        if self.namespaces.get(&name) != Some(&namespace) {
            self.namespaces.insert(name.clone(), namespace);
            self.reconsider_daemon_sets(|daemon_set| daemon_set.metadata.namespace == name);
        }
    }

    /// A namespace is gone.
    pub fn delete_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.reconsider_daemon_sets(|daemon_set| daemon_set.metadata.namespace == name);
        }
    }

    /// A priority class was added or changed.
    pub fn apply_priority_class(&mut self, class: PriorityClass) {
        let name = class.metadata.name.clone();
        if self.priority_classes.get(&name) != Some(&class) {
            self.priority_classes.insert(name, class);
            self.reconsider_daemon_sets(|_| true);
        }
    }

    /// A priority class is gone.
    pub fn delete_priority_class(&mut self, name: &str) {
        if self.priority_classes.remove(name).is_some() {
            self.reconsider_daemon_sets(|_| true);
        }
    }

    /// A limit range was added or changed.
    pub fn apply_limit_range(&mut self, range: LimitRange) {
        let namespace = range.metadata.namespace.clone();
        let key = (namespace.clone(), range.metadata.name.clone());
        if self.limit_ranges.get(&key) != Some(&range) {
            self.limit_ranges.insert(key, range);
            self.reconsider_daemon_sets(|daemon_set| daemon_set.metadata.namespace == namespace);
        }
    }

    /// A limit range is gone.
    pub fn delete_limit_range(&mut self, namespace: &str, name: &str) {
        if self.limit_ranges.remove(&(namespace.to_owned(), name.to_owned())).is_some() {
            self.reconsider_daemon_sets(|daemon_set| daemon_set.metadata.namespace == namespace);
        }
    }

    /// A runtime class was added or changed.
    pub fn apply_runtime_class(&mut self, class: RuntimeClass) {
        let name = class.metadata.name.clone();
        if self.runtime_classes.get(&name) != Some(&class) {
            self.runtime_classes.insert(name, class);
            self.reconsider_daemon_sets(|_| true);
        }
    }

    /// A runtime class is gone.
    pub fn delete_runtime_class(&mut self, name: &str) {
        if self.runtime_classes.remove(name).is_some() {
            self.reconsider_daemon_sets(|_| true);
        }
    }

    /// A quota was added or changed.
    pub fn apply_resource_quota(&mut self, quota: ResourceQuota) {
        let key = (quota.metadata.namespace.clone(), quota.metadata.name.clone());
        self.resource_quotas.insert(key, quota);
    }

    /// A quota is gone.
    pub fn delete_resource_quota(&mut self, namespace: &str, name: &str) {
        self.resource_quotas.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// What a LimitRange gives to containers of a namespace that say nothing themselves.
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

    /// What a runtime class adds to a pod.
    pub(super) fn runtime_class_overhead(&self, name: &str) -> Option<&ResourceList> {
        self.runtime_classes.get(name).map(|class| &class.overhead.pod_fixed)
    }

    /// The priority that admission gives to a pod that names `class`, or none.
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

fn add_absent(to: &mut BTreeMap<String, crate::scheduling::quantity::Quantity>, from: &ResourceList) {
    for (name, amount) in from {
        to.entry(name.clone()).or_insert(*amount);
    }
}
