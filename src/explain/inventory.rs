//! Objects from manifests or from a cluster's lists, put into the cache that rows are computed from.

use std::sync::Arc;

use super::create_failures::CreateFailures;
use crate::api::daemonset::DaemonSet;
use crate::api::event::Event;
use crate::api::meta::{Metadata, TypeMeta};
use crate::api::node::Node;
use crate::api::pod::Pod;
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::cache::Cache;
use crate::policy::Policy;

/// The objects of a cluster, real or described by manifests.
#[derive(Debug)]
pub struct Inventory {
    /// All objects but the Events.
    pub cluster: Cache,
    /// The failures to create pods, from the Events.
    pub failures: CreateFailures,
}

impl Inventory {
    /// Creates an empty inventory. `policy` says which kinds count as DaemonSets.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { cluster: Cache::new(policy), failures: CreateFailures::default() }
    }

    /// Adds one object, in JSON, or replaces the same object: that of the same UID for pods and DaemonSets, of the same name for
    /// other kinds. Returns false if rows do not depend on objects of this kind.
    ///
    /// # Errors
    /// Fails if the object does not have the shape of its kind.
    pub fn apply(&mut self, kind: &TypeMeta, json: &str) -> Result<bool, serde_json::Error> {
        match (kind.group(), kind.kind.as_str()) {
            ("", "Node") => self.apply_node(serde_json::from_str(json)?),
            ("", "Pod") => self.apply_pod(serde_json::from_str(json)?),
            ("", "Namespace") => self.cluster.apply_namespace(serde_json::from_str::<Namespace>(json)?),
            ("", "LimitRange") => {
                let mut range: LimitRange = serde_json::from_str(json)?;
                default_namespace(&mut range.metadata);
                self.cluster.apply_limit_range(range);
            }
            ("", "ResourceQuota") => {
                let mut quota: ResourceQuota = serde_json::from_str(json)?;
                default_namespace(&mut quota.metadata);
                self.cluster.apply_resource_quota(quota);
            }
            ("scheduling.k8s.io", "PriorityClass") => {
                self.cluster.apply_priority_class(serde_json::from_str::<PriorityClass>(json)?);
            }
            ("node.k8s.io", "RuntimeClass") => {
                self.cluster.apply_runtime_class(serde_json::from_str::<RuntimeClass>(json)?);
            }
            ("" | "events.k8s.io", "Event") => self.failures.apply(serde_json::from_str::<Event>(json)?),
            (group, kind) if self.is_daemon_set(group, kind) => {
                let daemon_set = serde_json::from_str(json)?;
                self.apply_daemon_set(group, daemon_set);
            }
            _ => return Ok(false),
        }
        // Nothing is kept beside the objects.
        self.cluster.take_changes();
        Ok(true)
    }

    /// Adds a Node, or replaces the Node of the same name.
    pub fn apply_node(&mut self, node: Node) {
        self.cluster.apply_node(node);
    }

    /// Adds a pod. A pod from a manifest has no UIDs: it gets one made from its name, and so does each of its owner references.
    pub fn apply_pod(&mut self, mut pod: Pod) {
        default_namespace(&mut pod.metadata);
        let metadata = &mut pod.metadata;
        if metadata.uid.is_empty() {
            metadata.uid = format!("Pod/{}/{}", metadata.namespace, metadata.display_name());
        }
        for owner in metadata.owner_references.iter_mut().filter(|owner| owner.uid.is_empty()) {
            owner.uid = made_up_uid(owner.group(), &metadata.namespace, &owner.name);
        }
        self.cluster.apply_pod(&pod);
    }

    /// Adds a DaemonSet of API group `group`. A DaemonSet from a manifest has no UID: it gets one made from its name.
    pub fn apply_daemon_set(&mut self, group: &str, mut daemon_set: DaemonSet) {
        let metadata = &mut daemon_set.metadata;
        default_namespace(metadata);
        if metadata.uid.is_empty() {
            metadata.uid = made_up_uid(group, &metadata.namespace, metadata.display_name());
        }
        self.cluster.apply_daemon_set(group, daemon_set);
    }

    fn is_daemon_set(&self, group: &str, kind: &str) -> bool {
        self.cluster.policy().daemon_set_kinds.iter().any(|known| known.group == group && known.kind == kind)
    }
}

/// Sets the namespace `default` if there is none, as kubectl does.
fn default_namespace(metadata: &mut Metadata) {
    if metadata.namespace.is_empty() {
        metadata.namespace.push_str("default");
    }
}

/// Returns a UID for an object from a manifest, which has none: the cache identifies objects by UID.
fn made_up_uid(group: &str, namespace: &str, name: &str) -> String {
    format!("{group}/{namespace}/{name}")
}
