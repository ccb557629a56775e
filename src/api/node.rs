//! Nodes, trimmed to the fields that this program needs to place a pod.

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use super::meta::{Metadata, or_default};
use super::pod::ResourceList;

/// The fields of `Node` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The part that administrators and controllers write.
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    /// The part that the kubelet writes.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// The fields of `NodeSpec` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// The taints in the order of the object: messages name the first that is not tolerated.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
    /// True while the node is cordoned.
    #[serde(deserialize_with = "or_default")]
    pub unschedulable: bool,
}

/// The fields of `NodeStatus` that this program reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The amounts that the requests of all pods may add up to.
    #[serde(deserialize_with = "or_default")]
    pub allocatable: ResourceList,
    /// The amounts that the machine has; they count where `allocatable` is absent, as the apiserver defaults it.
    #[serde(deserialize_with = "or_default")]
    pub capacity: ResourceList,
}

impl Node {
    /// Returns the amounts that the requests of all pods may add up to: `status.allocatable`, or `status.capacity` if that is
    /// empty.
    pub fn allocatable(&self) -> &ResourceList {
        if self.status.allocatable.is_empty() { &self.status.capacity } else { &self.status.allocatable }
    }
}
