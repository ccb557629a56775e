//! A node, reduced to what placing a pod on it needs.

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use super::meta::{Metadata, or_default};
use super::pod::ResourceList;

/// The part of `Node` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What its administrators and controllers ask for.
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    /// What the kubelet says.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// The part of `NodeSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// In the order of the object.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
    /// Whether the node is cordoned.
    #[serde(deserialize_with = "or_default")]
    pub unschedulable: bool,
}

/// The part of `NodeStatus` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// What pods may ask for in all.
    #[serde(deserialize_with = "or_default")]
    pub allocatable: ResourceList,
    /// What the machine has; read where `allocatable` is absent, as the apiserver defaults it.
    #[serde(deserialize_with = "or_default")]
    pub capacity: ResourceList,
}

impl Node {
    /// What pods may ask for in all.
    pub fn allocatable(&self) -> &ResourceList {
        if self.status.allocatable.is_empty() { &self.status.capacity } else { &self.status.allocatable }
    }
}
