//! PURE: room on nodes for daemon pods that have not landed yet.
//!
//! ```text
//! event ──▶ Cache ──changes──▶ Reservation::observe ──▶ dirty nodes ──▶ refresh: holds and gates ──▶ ClusterWrite
//!                                                         the scheduler's calls look them up: filter, preemption
//! ```
//! The cache holds the objects. The reservation holds what follows from them: the daemon pods that each node lacks, the room that
//! is reserved for them, the pods that are assumed on nodes and the pods that were refused. The daemon pods that a node lacks, and
//! what they need, do not depend on the extender, so that room can be reserved by other means too.

pub mod assumed;
pub mod basis;
pub mod bind;
pub mod bind_message;
pub mod cluster_write;
pub mod desired;
pub mod door;
pub mod feasibility;
pub mod filter;
pub mod filter_reason;
pub mod first_ready;
pub mod forget;
pub mod gate;
pub mod hold;
pub mod hold_basis;
pub mod incoming_pod;
pub mod judge;
pub mod judging;
pub mod missing;
pub mod node_reservation;
pub mod node_set;
pub mod nomination;
pub mod observe;
pub mod oldest;
pub mod packing;
pub mod pod_wait;
pub mod preemption;
pub mod prepared_filter;
pub mod refresh;
pub mod refresh_gates;
pub mod refusal_clock;
pub mod spent_note;
pub mod stale_refusals;
pub mod stats;
pub mod target_node_filter;
pub mod tick;
pub mod token_bucket;
pub mod unborn;
pub mod unknown_bindings;
pub mod view;
pub mod wait_budget;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

pub use self::stats::ReservationStats;
pub use self::view::View;

use self::assumed::AssumedPods;
use self::basis::BasisLimits;
use self::cluster_write::{ClusterWrite, HoldSubject};
use self::first_ready::FirstReadySweep;
use self::judging::Judging;
use self::node_reservation::{DaemonSetReservation, NodeReservation};
use self::nomination::Nominations;
use self::oldest::OldestDaemonSets;
use self::pod_wait::PodWaits;
use self::stale_refusals::StaleRefusals;
use self::unborn::UnbornPods;
use self::unknown_bindings::UnknownBindings;
use self::wait_budget::WaitBudgets;
use crate::api::node::Node;
use crate::cache::freshness::CacheFreshness;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::policy::Policy;

/// The time after a refusal on a node in which the warden wakes the waiting pods if room is freed there. The scheduler may have
/// seen the event first and tried a pod before the warden knew of the room; no later event of the cluster would make it try that
/// pod again.
const EARLY_RETRY_WINDOW: Duration = Duration::from_secs(3);

/// The room that is reserved on every node, and the pods that are assumed or were refused.
///
/// The reservation holds no object of the cluster: each function takes the cache, whose changes [`Reservation::observe`] must have
/// handled.
#[derive(Debug)]
pub struct Reservation {
    policy: Arc<Policy>,
    /// The namespace that the warden runs in; its own pods are never refused.
    own_namespace: Option<String>,
    /// The record of each node, by [`NodeId`].
    nodes: Vec<NodeReservation>,
    /// The record of each DaemonSet, by [`DaemonSetId`].
    daemon_sets: Vec<DaemonSetReservation>,
    /// The DaemonSets that may hold room.
    oldest: OldestDaemonSets,
    /// DaemonSets, and the first node that is not visited for them yet.
    placing: VecDeque<(DaemonSetId, NodeId)>,
    /// Deleted DaemonSets that are recorded nowhere any more.
    forgotten: Vec<DaemonSetId>,
    dirty: Vec<NodeId>,
    /// Nodes with a hold or gate whose clock may run.
    ticking: BTreeSet<NodeId>,
    /// Those of them that the tick under way has not handled yet.
    to_tick: Vec<NodeId>,
    assumed: AssumedPods,
    /// The time of the last refusal of each pod that was refused on every node, by UID.
    waiting: HashMap<Arc<str>, Instant>,
    waits: PodWaits,
    unknown_bindings: UnknownBindings,
    judging: Judging,
    /// The pods that were bound since the last call of [`Reservation::take_unjudged`], and that no call has allowed.
    bound_unjudged: u64,
    /// The pods that a review let through to a node where they cannot count, by UID, with the time.
    allowed_unassumed: HashMap<Arc<str>, Instant>,
    /// The time until which this process was the elected judge, if it was and another one is.
    judged_until: Option<Instant>,
    last_refused_for_assumed: Option<Instant>,
    basis_limits: BasisLimits,
    wait_budgets: WaitBudgets,
    unborn: UnbornPods,
    /// The time at which a pod of any DaemonSet was last seen created.
    last_created_at: Option<Instant>,
    /// The time at which a terminating pod was last seen to leave, by namespace.
    last_termination: HashMap<Arc<str>, Instant>,
    /// True while the first complete cache is handled.
    is_starting: bool,
    /// The DaemonSets with holds that have no basis.
    lapsed: HashSet<DaemonSetId>,
    /// The time at which some of them were looked at again.
    lapsed_rechecked_at: Option<Instant>,
    freshness: CacheFreshness,
    stale_refusals: StaleRefusals,
    nominations: Nominations,
    first_ready: FirstReadySweep,
    writes: Vec<ClusterWrite>,
}

impl Reservation {
    /// Returns a reservation that has seen nothing of the cluster. `own_namespace` is the one that the warden runs in.
    pub fn new(policy: Arc<Policy>, own_namespace: Option<String>) -> Self {
        Self {
            policy,
            own_namespace,
            nodes: Vec::new(),
            daemon_sets: Vec::new(),
            oldest: OldestDaemonSets::default(),
            placing: VecDeque::new(),
            forgotten: Vec::new(),
            dirty: Vec::new(),
            ticking: BTreeSet::new(),
            to_tick: Vec::new(),
            assumed: AssumedPods::default(),
            waiting: HashMap::new(),
            waits: PodWaits::default(),
            unknown_bindings: UnknownBindings::default(),
            judging: Judging::default(),
            bound_unjudged: 0,
            allowed_unassumed: HashMap::new(),
            judged_until: None,
            last_refused_for_assumed: None,
            basis_limits: BasisLimits::default(),
            wait_budgets: WaitBudgets::default(),
            unborn: UnbornPods::default(),
            last_created_at: None,
            last_termination: HashMap::new(),
            is_starting: false,
            lapsed: HashSet::new(),
            lapsed_rechecked_at: None,
            freshness: CacheFreshness::default(),
            stale_refusals: StaleRefusals::default(),
            nominations: Nominations::default(),
            first_ready: FirstReadySweep::default(),
            writes: Vec::new(),
        }
    }

    /// Returns the writes that were decided since the last call, for the caller to send to the apiserver.
    pub fn take_writes(&mut self) -> Vec<ClusterWrite> {
        std::mem::take(&mut self.writes)
    }

    /// The number of pods that are assumed on nodes.
    pub fn assumed_len(&self) -> usize {
        self.assumed.len()
    }

    /// The number of pods that were refused on every node of their last filter call and wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Grows the table of nodes to the ids that the cache may have given out: an event that only mentions a node makes no change.
    fn cover(&mut self, cache: &Cache) {
        if self.nodes.len() < cache.node_capacity() {
            self.nodes.resize_with(cache.node_capacity(), NodeReservation::default);
        }
    }

    fn mark_dirty(&mut self, id: NodeId) {
        if !std::mem::replace(&mut self.nodes[id].is_dirty, true) {
            self.dirty.push(id);
        }
    }

    /// Handles that a node may have more free room: wakes the waiting pods if one was refused there a moment ago, which may have
    /// been too early.
    fn room_freed(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        let Some(node) = cache.node_if_known(id) else { return };
        let row = &mut self.nodes[id];
        row.catch_up(node);
        let recently = |at: Instant| now.saturating_duration_since(at) < EARLY_RETRY_WINDOW;
        if row.last_refused.is_some_and(recently) {
            self.wake(cache, id);
        }
    }

    /// Asks for a write to the node, which makes the scheduler try the refused pods again. Does nothing if no pod waits or the
    /// cache lacks the Node.
    fn wake(&mut self, cache: &Cache, id: NodeId) {
        if self.waiting.is_empty() {
            return;
        }
        if let Some(node) = cache.node_if_known(id).filter(|node| node.node.is_some()) {
            self.push_wake(&node.name);
        }
    }

    /// Asks for a write to any one node, which makes the scheduler try the refused pods again. Does nothing if no pod waits.
    fn wake_any(&mut self, cache: &Cache) {
        if self.waiting.is_empty() {
            return;
        }
        if let Some((_, node)) = cache.nodes().find(|(_, node)| node.node.is_some()) {
            self.push_wake(&node.name);
        }
    }

    /// Adds a wake, unless one is waiting to be written: the scheduler tries all pods that an extender refused at a change of any
    /// node.
    fn push_wake(&mut self, node: &Arc<str>) {
        if !self.writes.iter().any(|write| matches!(write, ClusterWrite::Wake(_))) {
            self.writes.push(ClusterWrite::Wake(node.clone()));
        }
    }

    /// Adds a write about a hold or gate on a node. Does nothing if the cache lacks the Node.
    fn push_about(
        &mut self,
        cache: &Cache,
        id: NodeId,
        daemon_set: DaemonSetId,
        has_refused: bool,
        write: impl FnOnce(HoldSubject) -> ClusterWrite,
    ) {
        if let Some(node) = cache.node_if_known(id).and_then(|state| state.node.as_ref()) {
            let subject = self.hold_subject(node, daemon_set, has_refused);
            self.writes.push(write(subject));
        }
    }

    /// Returns the names and UIDs of a node and a DaemonSet for a write about a hold or gate.
    fn hold_subject(&self, node: &Node, daemon_set: DaemonSetId, has_refused: bool) -> HoldSubject {
        HoldSubject {
            node: node.metadata.name.as_str().into(),
            node_uid: node.metadata.uid.clone(),
            daemon_set: self.daemon_sets[daemon_set].reference.clone(),
            has_refused,
        }
    }
}

#[cfg(test)]
mod tests;
