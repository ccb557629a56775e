//! PURE: the objects of the cluster, as far as decisions need them: a struct that events fill, without a watch, a clock or a lock.
//!
//! ```text
//! [Node] ──▶ NodeInfo ◀── bound, nominated, target ── PodInfo ◀── [Pod]
//!                                                      │ owner
//!                                   DaemonSetInfo ◀────┘ ◀── [DaemonSet], [PriorityClass], [LimitRange], ...
//! ```
//! Events may come in any order: a pod before its node or its DaemonSet. Each event leaves its [`change::Change`]s for the
//! reservation, which the cache does not know.

pub mod change;
pub mod daemonset_info;
pub mod daemonsets;
pub mod freshness;
pub mod interner;
pub mod node_info;
pub mod nodes;
mod pod_ids;
pub mod pod_info;
pub mod pods;
pub mod policy_objects;
pub mod replicas;
pub mod stats;
pub mod unbound;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use k8s_openapi::jiff::Timestamp;
use slab::Slab;

pub use self::stats::CacheStats;

use self::change::Change;
use self::daemonset_info::DaemonSetInfo;
use self::interner::Interner;
use self::node_info::NodeInfo;
use self::pod_ids::PodIds;
use self::pod_info::PodInfo;
use self::replicas::Replicas;
use self::unbound::UnboundPods;
use crate::api::meta::Metadata;
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::policy::Policy;
use crate::scheduling::host_ports::HostPort;

/// The id of a node, stable while a Node of its name exists or a cached pod names it. Another node may get the id after that.
pub type NodeId = usize;
/// The id of a pod, stable while the pod is cached. Another pod may get the id after that.
pub type PodId = usize;
/// The id of a DaemonSet, stable while it is cached. Another DaemonSet may get the id after that.
pub type DaemonSetId = usize;

/// The cached objects of the cluster, with the links between them and the values that follow from them.
#[derive(Debug)]
pub struct Cache {
    policy: Arc<Policy>,
    nodes: Slab<NodeInfo>,
    node_ids: HashMap<Arc<str>, NodeId>,
    /// Boxed, so that few bytes move when there are more than ever.
    pods: Slab<Box<PodInfo>>,
    pod_ids: PodIds,
    unbound: UnboundPods,
    /// The Pods of the own release.
    replicas: Replicas,
    /// Ordinary pods that the scheduler has tried and failed.
    failed_ordinary: HashSet<PodId>,
    /// The number of terminating pods by namespace.
    terminating: HashMap<Arc<str>, u32>,
    daemon_sets: Slab<DaemonSetInfo>,
    daemon_set_ids: HashMap<Arc<str>, DaemonSetId>,
    /// Pods by the UID of the DaemonSet that they name as their controller. The DaemonSet may come later, or never.
    pods_by_owner: HashMap<Arc<str>, HashSet<PodId>>,
    texts: Interner<str>,
    labels: Interner<BTreeMap<String, String>>,
    host_ports: Interner<[HostPort]>,
    namespaces: BTreeMap<String, Namespace>,
    priority_classes: BTreeMap<String, PriorityClass>,
    limit_ranges: BTreeMap<(String, String), LimitRange>,
    runtime_classes: BTreeMap<String, RuntimeClass>,
    resource_quotas: BTreeMap<(String, String), ResourceQuota>,
    /// The latest creation time of any object, as the cluster writes it: its clock, as far as objects tell it.
    newest_creation: Box<str>,
    changes: Vec<Change>,
}

impl Cache {
    /// Returns an empty cache.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            nodes: Slab::new(),
            node_ids: HashMap::new(),
            pods: Slab::new(),
            pod_ids: PodIds::default(),
            unbound: UnboundPods::default(),
            replicas: Replicas::default(),
            failed_ordinary: HashSet::new(),
            terminating: HashMap::new(),
            daemon_sets: Slab::new(),
            daemon_set_ids: HashMap::new(),
            pods_by_owner: HashMap::new(),
            texts: Interner::default(),
            labels: Interner::default(),
            host_ports: Interner::default(),
            namespaces: BTreeMap::new(),
            priority_classes: BTreeMap::new(),
            limit_ranges: BTreeMap::new(),
            runtime_classes: BTreeMap::new(),
            resource_quotas: BTreeMap::new(),
            newest_creation: Box::default(),
            changes: Vec::new(),
        }
    }

    /// Sets the namespace that the process runs in, whose Pods may be [`Replicas`]. Call it before any event.
    pub fn set_own_namespace(&mut self, namespace: Option<String>) {
        self.replicas.set_own_namespace(namespace);
    }

    /// Returns the Pods of the own namespace that belong to a release.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Returns the changes since the last call, in the order of the events. Call it after each event.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Returns the configuration that the cache was made with.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Returns all nodes, also those without a Node that only pods name.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        self.nodes.iter()
    }

    /// Returns a node by its name; `None` if no Node has the name and no cached pod names it.
    pub fn node(&self, name: &str) -> Option<(NodeId, &NodeInfo)> {
        let id = self.node_id(name)?;
        Some((id, &self.nodes[id]))
    }

    /// Returns a node by its id. Panics if no node has the id.
    pub fn node_by_id(&self, id: NodeId) -> &NodeInfo {
        &self.nodes[id]
    }

    /// Returns a node by its id; `None` if no node has the id, as after the node has been forgotten.
    pub(crate) fn node_if_known(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id)
    }

    pub(crate) fn node_id(&self, name: &str) -> Option<NodeId> {
        self.node_ids.get(name).copied()
    }

    /// Returns a number above the id of every node, for tables that are indexed by [`NodeId`].
    pub(crate) fn node_capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// Returns a number above every pod's id.
    pub(crate) fn pod_capacity(&self) -> usize {
        self.pods.capacity()
    }

    /// Returns the pods, ended ones too.
    pub fn pods(&self) -> impl Iterator<Item = (PodId, &PodInfo)> {
        self.pods.iter().map(|(id, pod)| (id, &**pod))
    }

    /// Returns a pod by its id. Panics if no pod has the id.
    pub fn pod_by_id(&self, id: PodId) -> &PodInfo {
        &self.pods[id]
    }

    /// Returns a pod by its UID; `None` if it is not cached.
    pub fn pod(&self, uid: &str) -> Option<&PodInfo> {
        self.pod_ids.get(uid).map(|id| &*self.pods[id])
    }

    /// Returns the pods of no DaemonSet that the scheduler has tried and failed to place, in no order.
    pub(crate) fn failed_ordinary_pods(&self) -> impl Iterator<Item = &PodInfo> {
        self.failed_ordinary.iter().map(|id| &*self.pods[*id])
    }

    /// Returns a pod by its id; `None` if no pod has the id, as after the pod has been deleted.
    pub(crate) fn pod_if_known(&self, id: PodId) -> Option<&PodInfo> {
        self.pods.get(id).map(|pod| &**pod)
    }

    /// Returns the id of the pod with this UID; `None` if it is not cached.
    pub(crate) fn pod_id(&self, uid: &str) -> Option<PodId> {
        self.pod_ids.get(uid)
    }

    /// Returns all cached DaemonSets, of every group.
    pub fn daemon_sets(&self) -> impl Iterator<Item = (DaemonSetId, &DaemonSetInfo)> {
        self.daemon_sets.iter().filter(|(_, info)| !info.is_deleted)
    }

    /// Returns a DaemonSet by its id, also a deleted one to which something may still refer. Panics if no DaemonSet has the id.
    pub fn daemon_set_by_id(&self, id: DaemonSetId) -> &DaemonSetInfo {
        &self.daemon_sets[id]
    }

    /// Returns a DaemonSet by its id; `None` if no DaemonSet has the id, as after the DaemonSet has been deleted.
    pub(crate) fn daemon_set_if_known(&self, id: DaemonSetId) -> Option<&DaemonSetInfo> {
        self.daemon_sets.get(id).filter(|info| !info.is_deleted)
    }

    /// Returns a deleted DaemonSet to which something may still refer by its id.
    pub(crate) fn deleted_daemon_set(&self, id: DaemonSetId) -> Option<&DaemonSetInfo> {
        self.daemon_sets.get(id).filter(|info| info.is_deleted)
    }

    /// Returns a DaemonSet by its UID; `None` if it is not cached.
    pub fn daemon_set(&self, uid: &str) -> Option<(DaemonSetId, &DaemonSetInfo)> {
        let id = *self.daemon_set_ids.get(uid)?;
        Some((id, &self.daemon_sets[id]))
    }

    /// Returns a namespace by its name; `None` if it is not cached.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// Returns a priority class by its name; `None` if it is not cached.
    pub fn priority_class(&self, name: &str) -> Option<&PriorityClass> {
        self.priority_classes.get(name)
    }

    /// Returns the quotas of a namespace, in the order of their names.
    pub fn resource_quotas(&self, namespace: &str) -> impl Iterator<Item = &ResourceQuota> {
        let first = (namespace.to_owned(), String::new());
        let of_namespace = move |((own, _), _): &(&(String, String), &ResourceQuota)| *own == namespace;
        self.resource_quotas.range(first..).take_while(of_namespace).map(|(_, quota)| quota)
    }

    /// Returns the time that had passed since `created` when the newest object was created. This process' own clock may differ from
    /// the cluster's. Zero for a time that cannot be read.
    pub(crate) fn age_by_objects(&self, created: &str) -> Duration {
        let parse = |text: &str| text.parse::<Timestamp>().ok();
        let age = parse(&self.newest_creation)
            .zip(parse(created))
            .map(|(newest, created)| newest.duration_since(created));
        age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
    }

    fn note_creation(&mut self, metadata: &Metadata) {
        if *self.newest_creation < *metadata.creation_timestamp {
            self.newest_creation = metadata.creation_timestamp.as_str().into();
        }
    }

    /// Returns true if a pod of the namespace is terminating.
    pub(crate) fn has_terminating_pods(&self, namespace: &str) -> bool {
        self.terminating.contains_key(namespace)
    }

    /// Returns true if the pod exists, has not ended and is not bound; `None` if the cache does not know it.
    pub(crate) fn is_unbound(&self, uid: &str) -> Option<bool> {
        self.pod(uid).map(PodInfo::is_unbound)
    }

    /// Returns the pod of these names, if it is cached as neither bound nor ended.
    pub(crate) fn unbound_pod(&self, namespace: &str, name: &str) -> Option<&PodInfo> {
        let is_it = |id: PodId| {
            let pod = &self.pods[id];
            *pod.namespace == *namespace && *pod.name == *name
        };
        self.unbound.find(namespace, name, is_it).map(|id| &*self.pods[id])
    }
}

/// Invariants, which the tests of the reservation check after each event.
#[cfg(test)]
impl Cache {
    /// Panics unless each recorded id is of an object that exists and stands once in its list, and each node has a Node or a pod.
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
            assert_eq!(self.pod_ids.get(&pod.uid), Some(id));
            assert_eq!(self.failed_ordinary.contains(&id), pod.has_failed && pod.placement.is_some());
            assert_eq!(self.unbound.contains(&pod.namespace, &pod.name, id), pod.is_unbound());
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

    /// Returns true if no node, pod or DaemonSet is recorded anywhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.node_ids.is_empty()
            && self.pods.is_empty()
            && self.pod_ids.is_empty()
            && self.pods_by_owner.is_empty()
            && self.failed_ordinary.is_empty()
            && self.unbound.is_empty()
            && self.terminating.is_empty()
            && self.daemon_sets.is_empty()
            && self.daemon_set_ids.is_empty()
    }
}
