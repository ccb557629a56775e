//! Namespaces, priority classes, limit ranges, runtime classes and quotas, trimmed to the fields that this program reads.

use serde::Deserialize;

use crate::api::meta::{Metadata, or_default};
use crate::api::pod::ResourceList;

/// The part of `Namespace` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// Standard object metadata; the annotations may hold node selectors.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
}

/// The part of `PriorityClass` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PriorityClass {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The priority that the class gives to its pods.
    #[serde(deserialize_with = "or_default")]
    pub value: i32,
    /// True if pods that name no class get this one.
    #[serde(deserialize_with = "or_default")]
    pub global_default: bool,
}

/// The part of `LimitRange` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitRange {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The limits of the namespace.
    #[serde(deserialize_with = "or_default")]
    pub spec: LimitRangeSpec,
}

/// The part of `LimitRangeSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LimitRangeSpec {
    /// One for each type.
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
    /// Limits for containers that have none.
    #[serde(deserialize_with = "or_default")]
    pub default: ResourceList,
    /// Requests for containers that have none.
    #[serde(deserialize_with = "or_default")]
    pub default_request: ResourceList,
}

/// The part of `RuntimeClass` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeClass {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The amounts that the runtime itself needs.
    #[serde(deserialize_with = "or_default")]
    pub overhead: Overhead,
}

/// The part of `Overhead` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Overhead {
    /// Added to the requests of every pod of the class.
    #[serde(deserialize_with = "or_default")]
    pub pod_fixed: ResourceList,
}

/// The part of `ResourceQuota` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuota {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The limits and the pods that they count.
    #[serde(deserialize_with = "or_default")]
    pub spec: ResourceQuotaSpec,
    /// Written by the quota controller, later than the pods.
    #[serde(deserialize_with = "or_default")]
    pub status: ResourceQuotaStatus,
}

/// The part of `ResourceQuotaStatus` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceQuotaStatus {
    /// The limits that are in force.
    #[serde(deserialize_with = "or_default")]
    pub hard: ResourceList,
    /// The use of each resource in the namespace, terminating pods included.
    #[serde(deserialize_with = "or_default")]
    pub used: ResourceList,
}

/// The part of `ResourceQuotaSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuotaSpec {
    /// The most of each resource in the namespace.
    #[serde(deserialize_with = "or_default")]
    pub hard: ResourceList,
    /// Names of the scopes that a pod must be in to count.
    #[serde(deserialize_with = "or_default")]
    pub scopes: Vec<String>,
    /// Expressions that a pod must match to count.
    #[serde(deserialize_with = "or_default")]
    pub scope_selector: ScopeSelector,
}

/// `ScopeSelector` of a quota.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSelector {
    /// ANDed.
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
