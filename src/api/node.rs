//! A node, trimmed to the fields that placing a pod on it needs.

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use super::meta::{Metadata, or_default};
use super::pod::ResourceList;

/// The part of `Node` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// Written by administrators and controllers.
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    /// Written by the kubelet.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// The part of `NodeSpec` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// In the order of the object, which decides the taint that a message names.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
    /// True while the node is cordoned.
    #[serde(deserialize_with = "or_default")]
    pub unschedulable: bool,
}

/// The part of `NodeStatus` that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The amounts that the requests of all pods may add up to.
    #[serde(deserialize_with = "or_default")]
    pub allocatable: ResourceList,
    /// The amounts that the machine has; read where `allocatable` is absent, as the apiserver defaults it.
    #[serde(deserialize_with = "or_default")]
    pub capacity: ResourceList,
}

impl Node {
    /// Returns the amounts that the requests of all pods may add up to: `status.allocatable`, or `status.capacity` without it.
    pub fn allocatable(&self) -> &ResourceList {
        if self.status.allocatable.is_empty() { &self.status.capacity } else { &self.status.allocatable }
    }
}
