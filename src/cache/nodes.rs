//! Events of Nodes.

use super::change::Change;
use super::node_info::NodeInfo;
use super::{Cache, NodeId};
use crate::api::node::Node;
use crate::scheduling::resources::Resources;

impl Cache {
    /// Adds a Node, or replaces the one of the same name.
    pub fn apply_node(&mut self, node: Node) {
        self.note_creation(&node.metadata);
        let id = self.node_id_or_new(&node.metadata.name);
        let state = &mut self.nodes[id];
        let allocatable = Resources::from_list(node.allocatable());
        let is_resized = state.allocatable != allocatable;
        state.allocatable = allocatable;
        let old = state.node.replace(node);
        let Some(node) = &state.node else { return };
        let old = match old {
            Some(old) if old.metadata.uid != node.metadata.uid => {
                self.changes.push(Change::NodeGone(id, Box::new(old)));
                None
            }
            old => old,
        };
        if is_resized {
            self.changes.push(Change::NodeResized(id));
        }
        let Some(old) = old else {
            self.changes.push(Change::NodeAdded(id));
            return;
        };
        let is_same_place = old.metadata.labels == node.metadata.labels
            && old.spec.taints == node.spec.taints
            && old.metadata.is_deleting() == node.metadata.is_deleting();
        if !is_same_place {
            self.changes.push(Change::NodeChanged(id));
        } else if old.metadata.annotations != node.metadata.annotations {
            self.changes.push(Change::NodeAnnotated(id));
        }
    }

    /// Deletes a Node, if it is cached. While pods name the node, its entry stays, without a Node.
    pub fn delete_node(&mut self, name: &str) {
        let Some(id) = self.node_id(name) else { return };
        let state = &mut self.nodes[id];
        state.allocatable = Resources::default();
        if let Some(node) = state.node.take() {
            self.changes.push(Change::NodeGone(id, Box::new(node)));
        }
        self.forget_node_if_unused(id);
    }

    /// Returns the names of all Nodes, to delete those that a relist did not bring.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.node.is_some())
            .map(|(_, node)| node.name.to_string())
            .collect()
    }

    pub(super) fn node_id_or_new(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.node_id(name) {
            return id;
        }
        let name = self.texts.intern(name);
        let id = self.nodes.insert(NodeInfo::new(name.clone()));
        self.node_ids.insert(name, id);
        id
    }

    pub(super) fn forget_node_if_unused(&mut self, id: NodeId) {
        if self.nodes[id].is_unused() {
            let state = self.nodes.remove(id);
            self.node_ids.remove(&state.name);
            self.changes.push(Change::NodeForgotten(id));
        }
    }
}
