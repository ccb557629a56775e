//! Namespaces, priority classes, limit ranges, runtime classes and quotas, reduced to the fields that are read.

use serde::Deserialize;

use crate::api::meta::{Metadata, or_default};
use crate::api::pod::ResourceList;

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
