//! A pod of the cluster, reduced to what keeping room needs: a cluster has many.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DaemonSetId, NodeId};
use crate::api::pod::PodSpec;
use crate::scheduling::host_ports::HostPort;
use crate::scheduling::resources::Resources;

/// A pod of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct PodInfo {
    /// Its UID.
    pub uid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Box<str>,
    /// The node it is bound to.
    pub node: Option<NodeId>,
    /// The node whose room it is to have, by preemption or by nomination of ours, while it is not bound.
    pub nominated: Option<NodeId>,
    /// Its priority.
    pub priority: i32,
    /// What it holds of its node.
    pub requests: Resources,
    /// Ports of the host that it takes.
    pub host_ports: Box<[HostPort]>,
    /// How far it is.
    pub phase: PodPhase,
    /// Whether it is being deleted.
    pub is_terminating: bool,
    /// Whether it is Ready.
    pub is_ready: bool,
    /// Only for pods that a DaemonSet controls, by their own word.
    pub daemon: Option<Box<DaemonPodInfo>>,
    /// Node selector, node affinity and tolerations; only for ordinary pods that the scheduler has tried and failed.
    pub placement: Option<Box<PodSpec>>,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Pending, Running or Unknown: it holds what it asked for.
    Unfinished,
    /// Ended well.
    Succeeded,
    /// Ended badly, or evicted.
    Failed,
}

impl PodInfo {
    /// Whether it is a genuine pod of this DaemonSet.
    pub fn is_of(&self, daemon_set: DaemonSetId) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.daemon_set == Some(daemon_set))
    }

    /// Whether it holds something of the node it is bound to.
    pub fn is_unfinished(&self) -> bool {
        self.phase == PodPhase::Unfinished
    }

    /// The version of a daemon pod that the scheduler has tried and failed to place; `None` for all others.
    pub fn failed_version(&self) -> Option<&str> {
        self.daemon.as_ref()?.failed_version.as_deref()
    }

    /// The node on which it counts as a daemon pod: where it is bound, else where it belongs.
    pub(super) fn place(&self) -> Option<NodeId> {
        let daemon = self.daemon.as_ref()?;
        self.node.or(daemon.target)
    }

    /// The node of which it holds something, or will.
    pub(super) fn occupied_node(&self) -> Option<NodeId> {
        self.node.or(self.nominated).filter(|_| self.is_unfinished())
    }

    /// Whether it holds at least `requests` of `node`.
    pub(super) fn still_occupies(&self, node: NodeId, requests: &Resources) -> bool {
        self.occupied_node() == Some(node) && self.requests.lacks(requests).is_none()
    }

    /// Whether it is as much a pod of its DaemonSet, and as new, as `other`.
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

/// What only daemon pods have.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonPodInfo {
    /// The UID of the DaemonSet that it names as its controller.
    pub owner_uid: Arc<str>,
    /// The DaemonSet, once it is known and only if it is in the pod's namespace and its selector matches: a forged reference
    /// never gets this far.
    pub daemon_set: Option<DaemonSetId>,
    /// The node that it is for.
    pub target: Option<NodeId>,
    /// The generation of the template that it was made from.
    pub generation: Option<i64>,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// When it was created; times of one cluster compare as text.
    pub created: Box<str>,
    /// The pod's version, while the scheduler has tried and failed to place it; also what a write to it must be guarded by.
    pub failed_version: Option<Box<str>>,
    /// Why it is not scheduled or not Ready, or why it failed, in the words of whoever said so.
    pub message: Box<str>,
}
