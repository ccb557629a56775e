//! The cluster as far as keeping room needs it: a plain struct fed by events, without a watch, a clock or a lock.
//!
//! ```text
//! [Node] ──▶ NodeInfo ◀── bound, nominated, meant for ── PodInfo ◀── [Pod]
//!               │ wanted                                     │ of
//!               └────────────▶ DaemonSetInfo ◀───────────────┘ ◀── [DaemonSet], [PriorityClass], [LimitRange], ...
//! ```
//! Events may come in any order: a pod before its node or its DaemonSet. What a change means for a node is worked out once, in
//! `Cache::refresh`, so that a call of the scheduler only looks it up.

pub mod daemonset_info;
mod daemonsets;
pub mod freshness;
pub mod interner;
pub mod node_info;
mod nodes;
pub mod pod_info;
mod pods;
mod policy_objects;
mod refresh;
mod refresh_gates;
mod stats;
mod tick;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use slab::Slab;

pub use self::stats::CacheStats;

use self::daemonset_info::DaemonSetInfo;
use self::freshness::CacheFreshness;
use self::interner::Interner;
use self::node_info::NodeInfo;
use self::pod_info::PodInfo;
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::policy::Policy;
use crate::reservation::assumed::AssumedPods;
use crate::reservation::cluster_write::{ClusterWrite, HoldSubject};
use crate::reservation::nomination::Nominations;
use crate::reservation::stale_refusals::StaleRefusals;

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
    /// The namespace that the warden itself runs in; its own pods are never refused.
    own_namespace: Option<String>,
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
    dirty: Vec<NodeId>,
    next_template_version: u64,
    pub(crate) ledger: AssumedPods,
    pub(crate) waiting: HashMap<Arc<str>, std::time::Instant>,
    pub(crate) last_refused_by_charge: Option<std::time::Instant>,
    pub(crate) freshness: CacheFreshness,
    pub(crate) stale_refusals: StaleRefusals,
    pub(crate) nominations: Nominations,
    pub(crate) effects: Vec<ClusterWrite>,
}

impl Cache {
    /// A cluster of which nothing is known yet.
    pub fn new(policy: Arc<Policy>, own_namespace: Option<String>) -> Self {
        Self {
            policy,
            own_namespace,
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
            dirty: Vec::new(),
            next_template_version: 0,
            ledger: AssumedPods::default(),
            waiting: HashMap::new(),
            last_refused_by_charge: None,
            freshness: CacheFreshness::default(),
            stale_refusals: StaleRefusals::default(),
            nominations: Nominations::default(),
            effects: Vec::new(),
        }
    }

    /// What is to be done outside since this was last asked.
    pub fn take_effects(&mut self) -> Vec<ClusterWrite> {
        std::mem::take(&mut self.effects)
    }

    /// The configuration that it decides by.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The namespace of the warden itself.
    pub fn own_namespace(&self) -> Option<&str> {
        self.own_namespace.as_deref()
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

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut NodeInfo {
        &mut self.nodes[id]
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

    /// How many pods are let through and not seen bound.
    pub fn ledger_len(&self) -> usize {
        self.ledger.len()
    }

    /// How many pods are refused everywhere and wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a pod exists and is not bound; `None` when it is not known (yet).
    pub(crate) fn is_waiting(&self, uid: &str) -> Option<bool> {
        self.pod(uid).map(|pod| pod.node.is_none() && pod.is_live())
    }

    pub(crate) fn hold_ref(&self, node: NodeId, daemon_set: DaemonSetId, has_refused: bool) -> HoldSubject {
        let info = &self.daemon_sets[daemon_set];
        let node = &self.nodes[node];
        HoldSubject {
            node: node.name.clone(),
            node_uid: node.uid().to_owned(),
            namespace: info.daemon_set.metadata.namespace.clone(),
            name: info.daemon_set.metadata.name.clone(),
            api_version: info.daemon_set.api_version.clone(),
            kind: info.daemon_set.kind.clone(),
            uid: info.uid.clone(),
            has_refused,
        }
    }
}

#[cfg(test)]
mod tests;
