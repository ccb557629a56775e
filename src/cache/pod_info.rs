//! A pod of the cluster, reduced to what decisions need, because a cluster has many.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::daemonset_info::PodDemand;
use super::{DaemonSetId, NodeId};
use crate::api::node::Node;
use crate::api::pod::PodSpec;
use crate::daemonset::placement::admits;
use crate::scheduling::host_ports::HostPort;
use crate::scheduling::obstacle::Obstacle;
use crate::scheduling::resources::Resources;

/// A pod of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct PodInfo {
    /// The UID.
    pub uid: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Box<str>,
    /// The node that the pod is bound to; `None` before that, and for an ordinary pod that has ended.
    pub node: Option<NodeId>,
    /// The node of `status.nominatedNodeName`, while the pod is neither bound nor ended.
    pub nominated: Option<NodeId>,
    /// The priority.
    pub priority: i32,
    /// The requested amounts.
    pub requests: Resources,
    /// The ports of the host.
    pub host_ports: Arc<[HostPort]>,
    /// The phase, reduced to what counts here.
    pub phase: PodPhase,
    /// True once the pod is being deleted.
    pub is_terminating: bool,
    /// True if the pod is Ready.
    pub is_ready: bool,
    /// True if the pod has opted out.
    pub is_opted_out: bool,
    /// True if the pod has the label of the warden's own pods.
    pub has_own_label: bool,
    /// True if the scheduler has tried and failed to place the pod, and has not placed it since.
    pub has_failed: bool,
    /// True if the pod asks for more ports of the host than are kept, so that it counts as if it asked for all of them.
    pub asks_all_ports: bool,
    /// Only for pods that name a DaemonSet as their controller.
    pub daemon: Option<Box<DaemonPodInfo>>,
    /// The node selector, node affinity and tolerations of an ordinary pod that is neither bound nor ended; `None` for any other
    /// pod, and for one with too many of them.
    pub placement: Option<Box<PodSpec>>,
}

/// The phase of a pod, reduced to what counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Pending, Running or Unknown: the pod holds what it requests.
    Unfinished,
    /// Succeeded.
    Succeeded,
    /// Failed, also by eviction.
    Failed,
}

impl PodInfo {
    /// Returns true if the pod is a verified pod of this DaemonSet: one that the DaemonSet owns, not only one that names it.
    pub fn is_of(&self, daemon_set: DaemonSetId) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.daemon_set == Some(daemon_set))
    }

    /// Returns true if the pod is a verified pod of this DaemonSet that is bound, has not ended and is not terminating.
    pub fn has_landed_for(&self, daemon_set: DaemonSetId) -> bool {
        self.is_of(daemon_set) && self.node.is_some() && self.is_unfinished() && !self.is_terminating
    }

    /// Returns true if the pod is neither bound nor ended.
    pub fn is_unbound(&self) -> bool {
        self.node.is_none() && self.is_unfinished()
    }

    /// Returns false if the labels or the name of a node exclude it for the pod, as far as they are known: no scheduler binds the
    /// pod there.
    pub fn may_run_on(&self, id: NodeId, node: &Node) -> bool {
        match (&self.daemon, &self.placement) {
            (Some(daemon), _) => daemon.target.is_none_or(|target| target == id),
            (None, Some(own)) => admits(own, &[], node, |_| true),
            (None, None) => true,
        }
    }

    /// Returns true if the pod has not ended.
    pub fn is_unfinished(&self) -> bool {
        self.phase == PodPhase::Unfinished
    }

    /// Returns the demand of the pod.
    pub fn demand(&self) -> PodDemand {
        PodDemand {
            requests: self.requests.clone(),
            host_ports: self.host_ports.clone(),
            priority: self.priority,
        }
    }

    /// Returns true if this is the demand of the pod.
    pub fn has_demand(&self, demand: &PodDemand) -> bool {
        self.priority == demand.priority
            && self.requests == demand.requests
            && self.host_ports == demand.host_ports
    }

    /// Returns the version of a daemon pod that the scheduler has tried and failed; `None` for other pods.
    pub fn failed_version(&self) -> Option<&str> {
        self.daemon.as_ref()?.failed_version.as_deref()
    }

    /// Returns the node on which a daemon pod counts: the one it is bound to, else its target. `None` if it has neither, and for an
    /// ordinary pod.
    pub(super) fn place(&self) -> Option<NodeId> {
        let daemon = self.daemon.as_ref()?;
        self.node.or(daemon.target)
    }

    /// Returns the node whose resources the pod holds, or will hold: the one it is bound to, else the one it is nominated to.
    /// `None` if it has neither or has ended.
    pub(super) fn occupied_node(&self) -> Option<NodeId> {
        self.node.or(self.nominated).filter(|_| self.is_unfinished())
    }

    /// Returns true if the pod occupies `node` and requests at least `requests`.
    pub(super) fn still_occupies(&self, node: NodeId, requests: &Resources) -> bool {
        self.occupied_node() == Some(node) && self.requests.lacks(requests).is_none()
    }

    /// Returns true if the namespace, the DaemonSet that the pod names, the labels, the generation and the creation time are those
    /// of `other`, so that the link to the DaemonSet stays right.
    pub(super) fn has_same_identity(&self, other: &Self) -> bool {
        let same_daemon = match (&self.daemon, &other.daemon) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                own.owner_uid == other.owner_uid
                    && own.labels == other.labels
                    && own.generation == other.generation
                    && own.created == other.created
            }
            _ => false,
        };
        same_daemon && self.namespace == other.namespace
    }
}

/// The part of a pod that only daemon pods have.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonPodInfo {
    /// The UID of the DaemonSet that the pod names as its controller.
    pub owner_uid: Arc<str>,
    /// The DaemonSet, once it is cached, and only if it is in the pod's namespace and its selector matches: a forged reference is
    /// never linked.
    pub daemon_set: Option<DaemonSetId>,
    /// The node that the pod is for; `None` if its spec names no single node.
    pub target: Option<NodeId>,
    /// The generation of the template that the pod was made from, by its label; `None` without the label, or if it is no number.
    pub generation: Option<i64>,
    /// The labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The creation time as the apiserver writes it, so that two of them compare as text.
    pub created: Box<str>,
    /// The pod's resource version while the scheduler has tried and failed to place it, else `None`. A write to the pod must be
    /// guarded by it.
    pub failed_version: Option<Box<str>>,
    /// True if the warden has nominated the pod: this process, another replica, or an earlier one.
    pub is_nominated_by_warden: bool,
    /// The obstacle to scheduling the pod, while it is not bound.
    pub obstacle: Obstacle,
    /// The message of the scheduler or the kubelet: the reason for which the pod is not scheduled, not Ready or failed.
    pub message: Box<str>,
}
