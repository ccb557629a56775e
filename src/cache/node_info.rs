//! A node of the cluster: what it has, what is on it, and what is kept on it.

use std::sync::Arc;

use super::PodId;
use crate::api::node::Node;
use crate::scheduling::resources::Resources;

/// A node of the cluster, or a name that a pod mentions and that has no Node (yet, or any more).
#[derive(Debug)]
pub struct NodeInfo {
    /// What pods may ask for in all.
    pub allocatable: Resources,
    /// What the pods bound to it hold, terminating ones too.
    pub requested: Resources,
    /// Its name.
    pub name: Arc<str>,
    /// Pods that are not bound and are nominated to it, by preemption or by us.
    pub nominated: Vec<PodId>,
    /// Pods bound to it that hold something.
    pub pods: Vec<PodId>,
    /// Daemon pods bound to it, or for it and not bound; terminal ones too.
    pub daemon_pods: Vec<PodId>,
    /// The object, while it exists.
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

    /// Whether nothing mentions the name any more.
    pub(super) fn is_unused(&self) -> bool {
        self.node.is_none()
            && self.pods.is_empty()
            && self.nominated.is_empty()
            && self.daemon_pods.is_empty()
    }

    /// The Node's UID, empty while there is none.
    pub fn uid(&self) -> &str {
        self.node.as_ref().map_or("", |node| &node.metadata.uid)
    }
}

/// Takes one id out of a short list.
pub(super) fn remove_id<T: PartialEq>(list: &mut Vec<T>, id: &T) {
    if let Some(at) = list.iter().position(|own| own == id) {
        list.swap_remove(at);
    }
}
