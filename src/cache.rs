//! The cluster as far as keeping room needs it: a plain struct fed by events, without a watch, a clock or a lock.
//!
//! ```text
//! [Node] ──▶ NodeInfo ◀── bound, nominated, meant for ── PodInfo ◀── [Pod]
//!               │ wanted                                     │ of
//!               └────────────▶ DaemonSetInfo ◀───────────────┘ ◀── [DaemonSet], [PriorityClass], [LimitRange], ...
//! ```
//! Events may come in any order: a pod before its node or its DaemonSet. What a change means for a node is worked out once, in
//! `Cache::refresh`, so that a call of the scheduler only looks it up.

pub mod change;
pub mod daemonset_info;
pub mod daemonsets;
pub mod freshness;
pub mod interner;
pub mod node_info;
pub mod nodes;
pub mod pod_info;
pub mod pods;
pub mod policy_objects;
pub mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use slab::Slab;

pub use self::stats::CacheStats;

use self::change::Change;
use self::daemonset_info::DaemonSetInfo;
use self::interner::Interner;
use self::node_info::NodeInfo;
use self::pod_info::PodInfo;
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::policy::Policy;

/// The id of a node, stable while anything mentions its name.
pub type NodeId = usize;
/// The id of a pod, stable while it exists.
pub type PodId = usize;
/// The id of a DaemonSet, stable while it exists.
pub type DaemonSetId = usize;

/// Everything that is known of the cluster.
#[derive(Debug)]
pub struct Cache {
    policy: Arc<Policy>,
    nodes: Slab<NodeInfo>,
    node_ids: HashMap<Arc<str>, NodeId>,
    pods: Slab<PodInfo>,
    pod_ids: HashMap<Arc<str>, PodId>,
    /// Ordinary pods that the scheduler has tried and failed.
    failed_ordinary: HashSet<PodId>,
    daemon_sets: Slab<DaemonSetInfo>,
    daemon_set_ids: HashMap<Arc<str>, DaemonSetId>,
    /// Pods that name a DaemonSet as their controller, by its UID: it may come later than they.
    pods_by_owner: HashMap<Arc<str>, HashSet<PodId>>,
    texts: Interner<str>,
    labels: Interner<BTreeMap<String, String>>,
    namespaces: BTreeMap<String, Namespace>,
    priority_classes: BTreeMap<String, PriorityClass>,
    limit_ranges: BTreeMap<(String, String), LimitRange>,
    runtime_classes: BTreeMap<String, RuntimeClass>,
    resource_quotas: BTreeMap<(String, String), ResourceQuota>,
    next_template_version: u64,
    changes: Vec<Change>,
}

impl Cache {
    /// A cluster of which nothing is known yet.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            nodes: Slab::new(),
            node_ids: HashMap::new(),
            pods: Slab::new(),
            pod_ids: HashMap::new(),
            failed_ordinary: HashSet::new(),
            daemon_sets: Slab::new(),
            daemon_set_ids: HashMap::new(),
            pods_by_owner: HashMap::new(),
            texts: Interner::default(),
            labels: Interner::default(),
            namespaces: BTreeMap::new(),
            priority_classes: BTreeMap::new(),
            limit_ranges: BTreeMap::new(),
            runtime_classes: BTreeMap::new(),
            resource_quotas: BTreeMap::new(),
            next_template_version: 0,
            changes: Vec::new(),
        }
    }

    /// Returns the changes that events have made since this was last called, in order. Call it after each event.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The configuration that it decides by.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The nodes, with names that only pods mention.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        self.nodes.iter()
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<(NodeId, &NodeInfo)> {
        let id = self.node_id(name)?;
        Some((id, &self.nodes[id]))
    }

    /// A node by its id.
    pub fn node_by_id(&self, id: NodeId) -> &NodeInfo {
        &self.nodes[id]
    }

    /// A node by its id, unless its name has been forgotten.
    pub(crate) fn node_if_known(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id)
    }

    pub(crate) fn node_id(&self, name: &str) -> Option<NodeId> {
        self.node_ids.get(name).copied()
    }

    /// Above every node's id.
    pub(crate) fn node_capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// The pods.
    pub fn pods(&self) -> impl Iterator<Item = (PodId, &PodInfo)> {
        self.pods.iter()
    }

    /// A pod by its id.
    pub fn pod_by_id(&self, id: PodId) -> &PodInfo {
        &self.pods[id]
    }

    /// A pod by its UID.
    pub fn pod(&self, uid: &str) -> Option<&PodInfo> {
        self.pod_ids.get(uid).map(|id| &self.pods[*id])
    }

    /// Ordinary pods that the scheduler has tried and failed, in no order.
    pub(crate) fn failed_ordinary_pods(&self) -> impl Iterator<Item = &PodInfo> {
        self.failed_ordinary.iter().map(|id| &self.pods[*id])
    }

    /// A pod by its id, unless it has been deleted.
    pub(crate) fn pod_if_known(&self, id: PodId) -> Option<&PodInfo> {
        self.pods.get(id)
    }

    /// The id of the pod with this UID.
    pub(crate) fn pod_id(&self, uid: &str) -> Option<PodId> {
        self.pod_ids.get(uid).copied()
    }

    /// The DaemonSets.
    pub fn daemon_sets(&self) -> impl Iterator<Item = (DaemonSetId, &DaemonSetInfo)> {
        self.daemon_sets.iter()
    }

    /// A DaemonSet by its id.
    pub fn daemon_set_by_id(&self, id: DaemonSetId) -> &DaemonSetInfo {
        &self.daemon_sets[id]
    }

    /// A DaemonSet by its id, unless it has been deleted.
    pub(crate) fn daemon_set_if_known(&self, id: DaemonSetId) -> Option<&DaemonSetInfo> {
        self.daemon_sets.get(id)
    }

    /// A DaemonSet by its UID.
    pub fn daemon_set(&self, uid: &str) -> Option<(DaemonSetId, &DaemonSetInfo)> {
        let id = *self.daemon_set_ids.get(uid)?;
        Some((id, &self.daemon_sets[id]))
    }

    /// A namespace's labels, annotations and state.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// A priority class by its name.
    pub fn priority_class(&self, name: &str) -> Option<&PriorityClass> {
        self.priority_classes.get(name)
    }

    /// The quotas of a namespace.
    pub fn resource_quotas(&self, namespace: &str) -> impl Iterator<Item = &ResourceQuota> {
        let first = (namespace.to_owned(), String::new());
        let of_namespace = move |((own, _), _): &(&(String, String), &ResourceQuota)| *own == namespace;
        self.resource_quotas.range(first..).take_while(of_namespace).map(|(_, quota)| quota)
    }

    /// Whether a pod exists and is not bound; `None` when it is not known (yet).
    pub(crate) fn is_unbound(&self, uid: &str) -> Option<bool> {
        self.pod(uid).map(|pod| pod.node.is_none() && pod.is_unfinished())
    }
}

/// Invariants that tests of the reservation check after each event.
#[cfg(test)]
impl Cache {
    /// Panics unless every id that is kept anywhere is of something that exists, and is there once.
    pub(crate) fn check_ids(&self) {
        for (id, node) in self.nodes() {
            assert_eq!(self.node(&node.name).unwrap().0, id);
            assert!(!node.is_unused(), "{} is kept for nothing", node.name);
            for list in [&node.pods, &node.nominated, &node.daemon_pods] {
                let unique: HashSet<_> = list.iter().collect();
                assert_eq!(unique.len(), list.len());
                assert!(list.iter().all(|pod| self.pods.contains(*pod)));
            }
        }
        for (id, pod) in self.pods() {
            assert_eq!(self.pod_ids[&pod.uid], id);
            assert_eq!(self.failed_ordinary.contains(&id), pod.placement.is_some());
            let target = pod.daemon.as_ref().and_then(|daemon| daemon.target);
            assert!(
                [pod.node, pod.nominated, target].into_iter().flatten().all(|node| self.nodes.contains(node))
            );
            if let Some(set) = pod.daemon.as_ref().and_then(|daemon| daemon.daemon_set) {
                assert!(self.daemon_sets[set].pods.contains(&id));
            }
        }
        assert!(self.pods_by_owner.values().flatten().all(|pod| self.pods.contains(*pod)));
    }

    /// Returns true if no node, pod or DaemonSet is left, nor a mention of one.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.node_ids.is_empty()
            && self.pods.is_empty()
            && self.pod_ids.is_empty()
            && self.pods_by_owner.is_empty()
            && self.failed_ordinary.is_empty()
            && self.daemon_sets.is_empty()
            && self.daemon_set_ids.is_empty()
    }
}
