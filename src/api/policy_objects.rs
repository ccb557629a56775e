//! Namespaces, priority classes, limit ranges, runtime classes and quotas, trimmed to the fields that this program reads.

use serde::Deserialize;

use crate::api::meta::{Metadata, or_default};
use crate::api::pod::ResourceList;

/// The fields of `Namespace` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// Standard object metadata; the annotations may hold node selectors.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
}

/// The fields of `PriorityClass` that this program reads.
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

/// The fields of `LimitRange` that this program reads.
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

/// The fields of `LimitRangeSpec` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LimitRangeSpec {
    /// The limits, one entry for each type of object.
    #[serde(deserialize_with = "or_default")]
    pub limits: Vec<LimitRangeItem>,
}

/// The fields of `LimitRangeItem` that this program reads.
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

/// The fields of `RuntimeClass` that this program reads.
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

/// The fields of `Overhead` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Overhead {
    /// The amounts that are added to the requests of every pod of the class.
    #[serde(deserialize_with = "or_default")]
    pub pod_fixed: ResourceList,
}

/// The fields of `ResourceQuota` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuota {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The limits, and the scopes of the pods that count against them.
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

/// The fields of `ResourceQuotaSpec` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuotaSpec {
    /// The limit of each resource's total in the namespace.
    #[serde(deserialize_with = "or_default")]
    pub hard: ResourceList,
    /// Names of the scopes that a pod must be in to count.
    #[serde(deserialize_with = "or_default")]
    pub scopes: Vec<String>,
    /// Expressions that a pod must match to count.
    #[serde(deserialize_with = "or_default")]
    pub scope_selector: ScopeSelector,
}

/// The `ScopeSelector` of a quota.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSelector {
    /// The expressions, all of which a pod must match.
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Vec<ScopeSelectorRequirement>,
}

/// One expression of a scope selector (`ScopedResourceSelectorRequirement`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSelectorRequirement {
    /// The name of the scope, such as `PriorityClass`.
    #[serde(deserialize_with = "or_default")]
    pub scope_name: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[serde(deserialize_with = "or_default")]
    pub operator: String,
    /// The values that the operator compares with, such as names of priority classes; empty for `Exists` and `DoesNotExist`.
    #[serde(deserialize_with = "or_default")]
    pub values: Vec<String>,
}
