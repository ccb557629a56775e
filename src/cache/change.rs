//! The changes that events make, for readers that keep records of their own beside the cache.

use std::sync::Arc;

use super::{DaemonSetId, NodeId, PodId};
use crate::api::node::Node;

/// One change. A reader handles the changes of an event in order, once the event is complete: an id may have been forgotten by then,
/// so the reader looks it up and does not index.
#[derive(Debug)]
pub enum Change {
    /// A Node was added, or replaced by another of the same name.
    NodeAdded(NodeId),
    /// The labels, the taints or the deletion of a Node changed.
    NodeChanged(NodeId),
    /// The allocatable resources of a Node changed.
    NodeResized(NodeId),
    /// Only the annotations of a Node changed.
    NodeAnnotated(NodeId),
    /// A Node, which is handed over, was deleted or replaced.
    NodeGone(NodeId, Box<Node>),
    /// Nothing mentions the name of a node any more: its id will be given to another name.
    NodeForgotten(NodeId),
    /// A pod that is bound to the node, or a daemon pod for it, changed, came or went.
    PodsChanged(NodeId),
    /// A pod left the node or asks for less of it.
    RoomFreed(NodeId),
    /// A pod that was known before is bound now.
    PodBound,
    /// A pod with this UID is bound, has ended or was deleted: the scheduler does not place it any more.
    PodNotPending(Arc<str>),
    /// A pod that was known before changed.
    PodChanged(PodId),
    /// A DaemonSet was added, or more than its status changed.
    DaemonSetChanged(DaemonSetId),
    /// A pod of the DaemonSet will ask for something else than before.
    DemandChanged(DaemonSetId),
    /// A DaemonSet was deleted: its id will be given to another.
    DaemonSetGone(DaemonSetId),
    /// The namespace of this name was added, changed or deleted.
    NamespaceChanged(String),
}
