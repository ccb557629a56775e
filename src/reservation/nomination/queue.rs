//! The nodes with daemon pods to nominate, in the order of their turn.

use std::collections::BTreeSet;
use std::time::Instant;

use hashbrown::HashMap;

use crate::cache::NodeId;

/// Nodes with daemon pods to nominate.
#[derive(Debug, Default)]
pub(super) struct NominationQueue {
    /// Nodes with a pod that is due, the oldest hold first.
    pub(super) due: BTreeSet<(Instant, NodeId)>,
    /// Nodes whose pods are due later, by the time at which the first of them is.
    pub(super) paused: BTreeSet<(Instant, NodeId)>,
    pub(super) places: HashMap<NodeId, QueuePlace>,
    /// Pods that are due, on all nodes.
    pub(super) pods: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueuePlace {
    Due { held_since: Instant, pods: usize },
    Paused { until: Instant },
}

impl NominationQueue {
    /// Sets the place of a node; `None` removes it.
    pub(super) fn put(&mut self, node: NodeId, place: Option<QueuePlace>) {
        let before = match place {
            Some(place) => self.places.insert(node, place),
            None => self.places.remove(&node),
        };
        match before {
            Some(QueuePlace::Due { held_since, pods }) => {
                self.due.remove(&(held_since, node));
                self.pods -= pods;
            }
            Some(QueuePlace::Paused { until }) => drop(self.paused.remove(&(until, node))),
            None => {}
        }
        match place {
            Some(QueuePlace::Due { held_since, pods }) => {
                self.due.insert((held_since, node));
                self.pods += pods;
            }
            Some(QueuePlace::Paused { until }) => drop(self.paused.insert((until, node))),
            None => {}
        }
    }

    /// Returns the due node with the oldest hold; `None` if no pod is due.
    pub(super) fn first(&self) -> Option<NodeId> {
        self.due.first().map(|(_, node)| *node)
    }

    /// Returns a node whose pause is over, or `None`. The caller must then update its place.
    pub(super) fn first_over(&self, now: Instant) -> Option<NodeId> {
        self.paused.first().filter(|(until, _)| *until <= now).map(|(_, node)| *node)
    }
}
