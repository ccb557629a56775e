//! The changes that events make, for readers with records of their own, such as the reservation.

use std::sync::Arc;

use super::{DaemonSetId, NodeId, PodId};
use crate::api::node::Node;

/// One change. A reader handles the changes of an event in order, once the event is complete. By then the object with an id may
/// have been forgotten, so the reader must look the id up with a function that returns `None` for it.
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
    /// This Node was deleted or replaced.
    NodeGone(NodeId, Box<Node>),
    /// No Node and no pod names the node any more: its id may be given to another.
    NodeForgotten(NodeId),
    /// A pod that is bound to the node, or a daemon pod for it, was added, changed or deleted.
    PodsChanged(NodeId),
    /// A pod left the node, or holds less of it.
    RoomFreed(NodeId),
    /// A pod that was cached as not bound was bound.
    PodBound(PodId),
    /// The pod with this UID is bound, has ended or was deleted: the scheduler does not place it any more.
    PodNotPending(Arc<str>),
    /// A cached pod changed. A pod that is added makes no such change.
    PodChanged(PodId),
    /// A DaemonSet was added, or its spec, labels, annotations or deletion changed.
    DaemonSetChanged {
        /// The DaemonSet.
        id: DaemonSetId,
        /// True if other nodes may be desired: the node selector, the node affinity or the tolerations have changed.
        moves: bool,
    },
    /// The requests, host ports or priority that are expected of the next pod of a DaemonSet changed.
    DemandChanged(DaemonSetId),
    /// A pod of a DaemonSet was created, and linked to it.
    DaemonPodCreated(DaemonSetId),
    /// The controller has acted on the current spec of a DaemonSet.
    DaemonSetObserved(DaemonSetId),
    /// The controller could not create a pod of a DaemonSet.
    CreationFailed(DaemonSetId),
    /// A terminating pod of the namespace is gone.
    TerminatingPodGone(Arc<str>),
    /// A DaemonSet was deleted: its id may be given to another.
    DaemonSetGone(DaemonSetId),
    /// The namespace of this name was added, changed or deleted.
    NamespaceChanged(String),
}
