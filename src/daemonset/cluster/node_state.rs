//! A node of the cluster: what it has, what is on it, and what is kept on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DaemonSetId, PodId};
use crate::daemonset::reservation::gate::Gate;
use crate::daemonset::reservation::hold::Hold;
use crate::scheduling::node::Node;
use crate::scheduling::resources::Resources;

/// A node of the cluster, or a name that a pod mentions and that has no Node (yet, or any more).
///
/// In this order: what every call of the scheduler reads of every node comes first and lies together, and the rest, which is
/// many times as long, is not fetched with it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct NodeState {
    head: Head,
    /// Whether it waits to be worked out again.
    pub is_dirty: bool,
    /// Whether a hold or a gate is in force: the one thing that the hot path looks at first.
    pub is_kept: bool,
    /// The highest priority among `wanted` of those that may hold; none where there is no Node.
    pub highest_wanted_priority: Option<i32>,
    /// Whether our view of the node is behind the scheduler's.
    pub staleness: Staleness,
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
    /// Pods that are not bound and for which preemption makes room here.
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
    pub(in crate::daemonset) offered: Resources,
    /// The object, while it exists.
    pub node: Option<Node>,
}

/// How much of a name lies with what is read of every node: all of most names, and it fills a cache line.
const HEAD: usize = 46;

/// The start of a name, and how long all of it is; of names that are longer than Kubernetes allows, that they are.
#[derive(Debug)]
#[repr(C)]
struct Head {
    text: [u8; HEAD],
    length: u16,
}

impl Head {
    fn of(name: &str) -> Self {
        let start = &name.as_bytes()[..name.len().min(HEAD)];
        let mut text = [0; HEAD];
        text[..start.len()].copy_from_slice(start);
        Self { text, length: u16::try_from(name.len()).unwrap_or(u16::MAX) }
    }

    fn is_all_of(&self, name: &[u8]) -> bool {
        usize::from(self.length) == name.len() && self.text[..name.len()] == *name
    }
}

/// What is known about the age of our view of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// What the scheduler offered fits what we see.
    UpToDate,
    /// The scheduler has offered the node to a pod that does not fit in what we see, first then.
    Behind(Instant),
    /// It has been so for too long: a difference in accounting, not in age.
    GaveUp,
}

/// For how long a node is refused because our view of it is behind: a difference in accounting must not block it for good.
const STALE_TIMEOUT: Duration = Duration::from_secs(2);

impl Staleness {
    /// Whether the node is refused for it.
    pub(in crate::daemonset) fn refuses(self, now: Instant) -> bool {
        matches!(self, Self::Behind(since) if now.saturating_duration_since(since) < STALE_TIMEOUT)
    }

    /// Whether it has just been refused for too long.
    pub(super) fn is_over(self, now: Instant) -> bool {
        matches!(self, Self::Behind(_)) && !self.refuses(now)
    }
}

impl NodeState {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            head: Head::of(&name),
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
            staleness: Staleness::UpToDate,
            offered: Resources::default(),
            last_refused: None,
            is_dirty: false,
        }
    }

    /// Whether this is its name.
    #[inline]
    pub(super) fn is_called(&self, name: &str) -> bool {
        match name.as_bytes().get(..HEAD) {
            Some(head) if name.len() > HEAD => self.head.text == head && *self.name == *name,
            _ => self.head.is_all_of(name.as_bytes()),
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
        if self.staleness != Staleness::UpToDate
            && self.allocatable.has_room_beside(&self.used, &self.offered)
        {
            self.staleness = Staleness::UpToDate;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_its_whole_name() {
        let names = [1, HEAD - 1, HEAD, HEAD + 1, 2 * HEAD].map(|length| "n".repeat(length));
        for name in &names {
            let node = NodeState::new(name.as_str().into());
            for other in &names {
                assert_eq!(node.is_called(other), name == other, "{name} {other}");
            }
            assert!(!node.is_called(""));
            assert!(!node.is_called(&format!("{}m", &name[1..])));
        }
    }
}
