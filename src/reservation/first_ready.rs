//! The first-ready annotations of Nodes: how many a Node gets, and the removal of those of deleted DaemonSets.
//!
//! A few nodes are visited with each tick. An annotation goes once the cache has not known its DaemonSet for `GRACE` of
//! uninterrupted freshness; every gap of a watch begins that time anew. Each replica decides for itself: to remove an annotation
//! twice is to remove it once, and a replica whose annotation was removed writes it once more and then leaves it
//! (`Gate::may_record_first_ready`), so that replicas of different configurations do not write in turn for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Reservation;
use super::cluster_write::ClusterWrite;
use super::gate::FIRST_READY_PREFIX;
use super::token_bucket::TokenBucket;
use crate::api::node::Node;
use crate::cache::freshness::CacheFreshness;
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, NodeId};
use crate::policy::ReservationMode;

/// The first-ready annotations that a Node gets. One has about 100 bytes, so they take 6 KiB of the 256 KiB that all annotations of
/// an object may have. A node has a handful of DaemonSets with such a gate.
pub const MAX_FIRST_READY: usize = 64;
/// The first-ready annotations of a Node that are read: those that a Node gets, and as many that another program has written.
pub const MAX_FIRST_READY_READ: usize = 2 * MAX_FIRST_READY;
/// The time for which no DaemonSet may have had the UID. An apiserver's watch may be behind for seconds, and one that was just
/// restored for minutes.
const GRACE: Duration = Duration::from_secs(600);
/// The nodes that are visited with a tick: 5,000 take 80 s, and a tick looks at 2,048 annotations at most.
const NODES_A_STEP: usize = 16;
/// The UIDs whose time runs at once; further ones wait for their turn.
const MAX_UNKNOWN: usize = 1_024;
/// The removals a second. Each changes a Node, at which the scheduler tries every refused pod again: as rare as a wake-up.
const PER_SECOND: u32 = 1;
/// The time after which a removal that is not seen counts as lost.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The progress of the removal.
#[derive(Debug)]
pub(super) struct FirstReadySweep {
    next: NodeId,
    /// By UID, the DaemonSets that annotations name and the cache does not know.
    unknown: HashMap<Arc<str>, UnknownDaemonSet>,
    /// The nodes whose annotations were asked to be removed lately.
    asked: HashMap<NodeId, Instant>,
    bucket: TokenBucket,
}

#[derive(Debug)]
struct UnknownDaemonSet {
    since: Instant,
    /// The last time that an annotation with the UID was seen.
    seen_at: Instant,
}

impl Default for FirstReadySweep {
    fn default() -> Self {
        let bucket = TokenBucket::new(PER_SECOND, PER_SECOND);
        Self { next: 0, unknown: HashMap::new(), asked: HashMap::new(), bucket }
    }
}

/// Returns true if a Node may get another first-ready annotation.
pub(super) fn has_room_for_first_ready(node: &Node) -> bool {
    recorded_uids(node).count() < MAX_FIRST_READY
}

/// Returns the UIDs of the DaemonSets that a Node has first-ready annotations of.
fn recorded_uids(node: &Node) -> impl Iterator<Item = &str> {
    node.metadata.annotations.keys().filter_map(|key| key.strip_prefix(FIRST_READY_PREFIX))
}

impl Reservation {
    /// Visits a few nodes, and asks to remove the first-ready annotations of DaemonSets that are gone. `lists_all`: no watch of
    /// DaemonSets, of any kind, is failing or has never listed. Call it with each tick. Nothing is written in mode Off.
    pub fn sweep_first_ready(&mut self, cache: &Cache, lists_all: bool, now: Instant) {
        let is_off = self.policy.reservation.mode == ReservationMode::Off;
        if is_off || !lists_all || self.freshness != CacheFreshness::Fresh {
            self.first_ready.unknown.clear();
            return;
        }
        let writes = self.first_ready.step(cache, now);
        self.writes.extend(writes);
    }
}

impl FirstReadySweep {
    fn step(&mut self, cache: &Cache, now: Instant) -> Vec<ClusterWrite> {
        let lasts = |since: Instant, time: Duration| now.saturating_duration_since(since) < time;
        self.asked.retain(|_, asked_at| lasts(*asked_at, ASK_AGAIN));
        // A UID that no visit has seen for so long is on no node any more.
        self.unknown
            .retain(|uid, daemon_set| cache.daemon_set(uid).is_none() && lasts(daemon_set.seen_at, GRACE));
        let mut writes = Vec::new();
        for _ in 0..NODES_A_STEP.min(cache.node_capacity()) {
            let id = self.next % cache.node_capacity();
            let node = cache.node_if_known(id);
            let gone = node.map_or_else(Vec::new, |node| self.visit(cache, node, now));
            if let (Some(node), false) = (node, gone.is_empty() || self.asked.contains_key(&id)) {
                if !self.bucket.take(1, now) {
                    // This node is the first of the next step.
                    break;
                }
                self.asked.insert(id, now);
                writes
                    .push(ClusterWrite::RemoveFirstReady { node: node.name.clone(), daemon_set_uids: gone });
            }
            self.next = id + 1;
        }
        writes
    }

    /// Notes the UIDs of a node's annotations that no DaemonSet has. Returns those whose time is up.
    fn visit(&mut self, cache: &Cache, node: &NodeInfo, now: Instant) -> Vec<Arc<str>> {
        let mut gone = Vec::new();
        let Some(node) = &node.node else { return gone };
        for uid in recorded_uids(node).filter(|uid| cache.daemon_set(uid).is_none()) {
            if let Some(daemon_set) = self.unknown.get_mut(uid) {
                daemon_set.seen_at = now;
                if now.saturating_duration_since(daemon_set.since) >= GRACE {
                    gone.push(uid.into());
                }
            } else if self.unknown.len() < MAX_UNKNOWN {
                self.unknown.insert(uid.into(), UnknownDaemonSet { since: now, seen_at: now });
            }
        }
        gone
    }
}
