//! A node of the cluster: what it has, what is on it, and what is kept on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DaemonSetId, PodId};
use crate::api::node::Node;
use crate::reservation::gate::Gate;
use crate::reservation::hold::Hold;
use crate::scheduling::resources::Resources;

/// A node of the cluster, or a name that a pod mentions and that has no Node (yet, or any more).
#[derive(Debug)]
pub struct NodeInfo {
    /// Whether it waits to be worked out again.
    pub is_dirty: bool,
    /// Whether a hold or a gate is in force: the one thing that the hot path looks at first.
    pub is_kept: bool,
    /// The highest priority among `wanted` of those that may hold; none where there is no Node.
    pub highest_wanted_priority: Option<i32>,
    /// Whether our view of the node is behind the scheduler's.
    pub staleness: NodeFreshness,
    /// What pods may ask for in all.
    pub allocatable: Resources,
    /// What the pods bound to it hold, terminating ones too.
    pub used: Resources,
    /// Its name.
    pub name: Arc<str>,
    /// Room kept here.
    pub holds: Vec<Hold>,
    /// Daemons that ordinary pods wait for here.
    pub gates: Vec<Gate>,
    /// Pods that are not bound and are nominated to it, by preemption or by us.
    pub nominated: Vec<PodId>,
    /// When a pod was last refused here for want of room.
    pub last_refused: Option<Instant>,
    /// Pods bound to it that hold something.
    pub pods: Vec<PodId>,
    /// Daemon pods bound to it, or for it and not bound; terminal ones too.
    pub daemon_pods: Vec<PodId>,
    /// DaemonSets that want a pod here and may hold, or gate.
    pub wanted: Vec<DaemonSetId>,
    /// What the pod asked for that the scheduler offered the node to although it does not fit in our view.
    pub(crate) offered: Resources,
    /// The object, while it exists.
    pub node: Option<Node>,
}

/// What is known about the age of our view of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeFreshness {
    /// What the scheduler offered fits what we see.
    Fresh,
    /// The scheduler has offered the node to a pod that does not fit in what we see, first then.
    Stale(Instant),
    /// It has been so for too long: a difference in accounting, not in age.
    StaleIgnored,
}

/// For how long a node is refused because our view of it is behind: a difference in accounting must not block it for good.
const STALE_TIMEOUT: Duration = Duration::from_secs(2);

impl NodeFreshness {
    /// Whether the node is refused for it.
    pub(crate) fn refuses(self, now: Instant) -> bool {
        matches!(self, Self::Stale(since) if now.saturating_duration_since(since) < STALE_TIMEOUT)
    }

    /// Whether it has just been refused for too long.
    pub(super) fn is_over(self, now: Instant) -> bool {
        matches!(self, Self::Stale(_)) && !self.refuses(now)
    }
}

impl NodeInfo {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            node: None,
            allocatable: Resources::default(),
            used: Resources::default(),
            pods: Vec::new(),
            nominated: Vec::new(),
            daemon_pods: Vec::new(),
            wanted: Vec::new(),
            highest_wanted_priority: None,
            holds: Vec::new(),
            gates: Vec::new(),
            is_kept: false,
            staleness: NodeFreshness::Fresh,
            offered: Resources::default(),
            last_refused: None,
            is_dirty: false,
        }
    }

    /// Whether nothing mentions the name any more.
    pub(super) fn is_unused(&self) -> bool {
        self.node.is_none()
            && self.pods.is_empty()
            && self.nominated.is_empty()
            && self.daemon_pods.is_empty()
    }

    /// Notes that something has changed: once what the scheduler offered fits in our view, that is not behind any more.
    pub(super) fn catch_up(&mut self) {
        if self.staleness != NodeFreshness::Fresh
            && self.allocatable.has_room_beside(&self.used, &self.offered)
        {
            self.staleness = NodeFreshness::Fresh;
        }
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
