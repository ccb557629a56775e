//! A node of the cluster: its resources and its pods.

use std::sync::Arc;

use super::PodId;
use crate::api::node::Node;
use crate::scheduling::resources::Resources;

/// A node of the cluster, or the name of a node that a pod names and that has no Node (yet, or any more).
#[derive(Debug)]
pub struct NodeInfo {
    /// The allocatable resources; empty without a Node.
    pub allocatable: Resources,
    /// The sum of the requests of `pods`.
    pub requested: Resources,
    /// The node's name.
    pub name: Arc<str>,
    /// Pods that are nominated to it and neither bound nor ended.
    pub nominated: Vec<PodId>,
    /// Pods bound to it that have not ended, terminating ones too.
    pub pods: Vec<PodId>,
    /// Pods that name a DaemonSet as their controller and are bound to it, or are for it and not bound yet; ended ones too.
    pub daemon_pods: Vec<PodId>,
    /// The Node, while it exists.
    pub node: Option<Node>,
}

impl NodeInfo {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            node: None,
            allocatable: Resources::default(),
            requested: Resources::default(),
            pods: Vec::new(),
            nominated: Vec::new(),
            daemon_pods: Vec::new(),
        }
    }

    /// Returns true if neither a Node nor a pod names it.
    pub(super) fn is_unused(&self) -> bool {
        self.node.is_none()
            && self.pods.is_empty()
            && self.nominated.is_empty()
            && self.daemon_pods.is_empty()
    }

    /// Returns the Node's UID; empty without a Node.
    pub fn uid(&self) -> &str {
        self.node.as_ref().map_or("", |node| &node.metadata.uid)
    }
}

/// Removes one id from a short list.
pub(crate) fn remove_id<T: PartialEq>(list: &mut Vec<T>, id: &T) {
    if let Some(at) = list.iter().position(|own| own == id) {
        list.swap_remove(at);
    }
}
