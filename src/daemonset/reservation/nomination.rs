//! Nomination: the scheduler and the autoscalers see the room that is held for a daemon pod.
//!
//! A pod with `status.nominatedNodeName` takes room in kube-scheduler's eyes: its requests count on that node against every pod of
//! its own or lower priority (kubernetes v1.36.3 pkg/scheduler/framework/runtime/framework.go, `addGENominatedPods`), and the
//! cluster-autoscaler adds it to its simulation (core/podlistprocessor/filter_out_expendable.go, `addPreemptingPodsToSnapshot`).
//! So a daemon pod that the scheduler has tried and failed, and for which a hold refuses others or would, is nominated to its node:
//! the others then find another node without asking us, or are Unschedulable in the scheduler's own words, and a node is made.
//!
//! ```text
//!            room is held, an attempt failed               written
//!   (none) ──────────────────────────────────▶ Asked ──────────────────▶ Ours
//!      ▲                                         │ not written            │
//!      │◀────────────────────────────────────────┘                        │
//!      └──────────────────────────────────────────────────────────────────┘
//!             the scheduler cleared it, or the hold ended and we did
//! ```
//! The scheduler clears a nomination with each failed attempt, and that wakes the pods that it kept off; so a pod is nominated
//! again, at most once an [`INTERVAL`]. A nomination that this process did not write is never touched.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::hold::{Hold, HoldState};
use super::token_bucket::TokenBucket;
use crate::daemonset::cluster::node_state::NodeState;
use crate::daemonset::cluster::{Cluster, Effect, NodeId, PodId};
use crate::daemonset::mutation::is_ignored;
use crate::daemonset::policy::ReservationMode;
use crate::scheduling::resources::Resources;

/// The shortest time between two nominations of one pod. At once was a loop of 80 patches a second: the scheduler's clearing
/// wakes the pod that it cleared.
const INTERVAL: Duration = Duration::from_secs(2);
/// Nominations a second, for all pods together: each costs the scheduler a failed attempt and a patch of its own, out of 50 calls
/// a second by default, and a tenth of those is what daemon pods may take (docs/scheduler-performance.md, "Nomination").
const PER_SECOND: u32 = 5;
/// Nominations at once after a quiet time.
const BURST: u32 = 50;
/// The pause after the apiserver has refused to nominate one pod, such as by an admission policy of the cluster.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// Nodes that one tick looks at, at most: those whose pods are not due yet stay at the front of the queue.
const NODES_A_TICK: usize = 1_000;

/// One write of `status.nominatedNodeName`, good for one version of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomination {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub name: Box<str>,
    /// The pod's UID.
    pub uid: Arc<str>,
    /// The version of the pod that was judged.
    pub resource_version: Box<str>,
    /// The node; `None` clears the nomination.
    pub node: Option<Arc<str>>,
}

/// What came of a [`Nomination`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NominationOutcome {
    /// It was written.
    Written {
        /// The pod's version after it.
        resource_version: String,
    },
    /// Nothing was written, for the pod has changed, is bound or gone.
    Outdated,
    /// The apiserver refused it.
    Refused,
    /// Nobody knows: there was no answer.
    Unknown,
}

/// The nominations of this process.
#[derive(Debug)]
pub struct Nominations {
    /// Pods that a nomination was asked for, while they are not bound, by UID.
    records: HashMap<Arc<str>, Record>,
    /// Nodes with a pod to nominate, the oldest hold first.
    queue: BTreeSet<(Instant, NodeId)>,
    /// The place of each node in `queue`.
    queued: HashMap<NodeId, Instant>,
    bucket: TokenBucket,
    is_permitted: bool,
    dropped_at: Option<Instant>,
}

#[derive(Debug)]
struct Record {
    node: NodeId,
    state: RecordState,
    /// No write before that.
    not_before: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum RecordState {
    /// The pod is not nominated by this process.
    Idle,
    /// A write over this version of the pod is under way.
    Asked(Box<str>),
    /// This process nominated the pod, by a write over this version of it, and nothing else was seen since.
    Ours(Box<str>),
}

/// A daemon pod that may be nominated.
struct Candidate {
    pod: PodId,
    held_since: Instant,
    /// Whether its hold refuses others, or would.
    refuses_others: bool,
}

impl Default for Nominations {
    fn default() -> Self {
        Self {
            records: HashMap::new(),
            queue: BTreeSet::new(),
            queued: HashMap::new(),
            bucket: TokenBucket::new(BURST, PER_SECOND),
            is_permitted: true,
            dropped_at: None,
        }
    }
}

impl Nominations {
    /// The number of pods that are nominated by this process.
    pub fn len(&self) -> usize {
        self.records.values().filter(|record| matches!(record.state, RecordState::Ours(_))).count()
    }

    /// Whether this process nominates no pod.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets a pod that is bound, has ended or is gone.
    pub fn forget(&mut self, uid: &str) {
        self.records.remove(uid);
    }

    /// Takes note of a pod as the watch brings it: a nomination that somebody else changed is not ours any more.
    pub fn observe(&mut self, uid: &str, nominated: Option<NodeId>, resource_version: Option<&str>) {
        let Some(record) = self.records.get_mut(uid) else { return };
        if let RecordState::Ours(over) = &record.state
            && nominated != Some(record.node)
            && resource_version != Some(over)
        {
            record.state = RecordState::Idle;
        }
    }

    /// Gives a node its place in the queue; `None` takes it out.
    fn enqueue(&mut self, node: NodeId, held_since: Option<Instant>) {
        let before = match held_since {
            Some(since) => self.queued.insert(node, since),
            None => self.queued.remove(&node),
        };
        if before == held_since {
            return;
        }
        before.map(|before| self.queue.remove(&(before, node)));
        held_since.map(|since| self.queue.insert((since, node)));
    }

    fn is_due(&self, uid: &str, now: Instant) -> bool {
        self.records.get(uid).is_none_or(|record| record.not_before <= now)
    }
}

impl Cluster {
    /// Says whether the apiserver lets this process patch pods/status; without that right nothing is nominated.
    pub fn permit_nomination(&mut self, is_permitted: bool) {
        self.nominations.is_permitted = is_permitted;
    }

    /// Decides who is nominated now, and whose nomination is taken back: effects for the edge to write. Returns how many pods had
    /// to be left out for want of rate, counted once an [`INTERVAL`].
    ///
    /// Call it on each tick, and only while the view of the cluster is fresh.
    pub fn nominate(&mut self, now: Instant) -> usize {
        let reservation = &self.policy().reservation;
        let is_on = reservation.nominate && reservation.mode == ReservationMode::Enforce;
        if !is_on || !self.nominations.is_permitted || self.sight.is_lost() {
            return 0;
        }
        self.take_back_nominations(now);
        let queue = &self.nominations.queue;
        let nodes: Vec<NodeId> = queue.iter().take(NODES_A_TICK).map(|(_, node)| *node).collect();
        let mut looked_at = 0;
        for id in nodes {
            self.refresh(id, now);
            // A node that was deleted was not worked out again.
            self.enqueue_nominations(id);
            if !self.nominate_on(id, now) {
                return self.count_dropped(looked_at, now);
            }
            looked_at += 1;
        }
        0
    }

    /// Takes note of what came of a write.
    pub fn nomination_done(&mut self, uid: &str, outcome: &NominationOutcome, now: Instant) {
        // The view may have gone past the write before its answer came; then the watch has the last word on it.
        let version = self.pod(uid).and_then(|pod| pod.failed_version().map(Box::from));
        let Some(record) = self.nominations.records.get_mut(uid) else { return };
        let RecordState::Asked(over) = std::mem::replace(&mut record.state, RecordState::Idle) else {
            return;
        };
        match outcome {
            NominationOutcome::Written { resource_version } => {
                let is_current = version
                    .as_ref()
                    .is_some_and(|seen: &Box<str>| *seen == over || **seen == **resource_version);
                if is_current {
                    record.state = RecordState::Ours(over);
                }
            }
            NominationOutcome::Refused => record.not_before = now + REFUSED_PAUSE,
            NominationOutcome::Outdated | NominationOutcome::Unknown => {}
        }
    }

    /// Gives a node that has just been worked out its place among those to nominate on.
    pub(in crate::daemonset) fn enqueue_nominations(&mut self, id: NodeId) {
        let candidates = self.candidates(id).into_iter();
        let waits = |candidate: &Candidate| {
            candidate.refuses_others && self.pod_by_id(candidate.pod).nominated.is_none()
        };
        let held_since = candidates.filter(waits).map(|candidate| candidate.held_since).min();
        self.nominations.enqueue(id, held_since);
    }

    /// Nominates the pods of one node that are due. False when the rate is spent.
    fn nominate_on(&mut self, id: NodeId, now: Instant) -> bool {
        let Some(node) = self.node_if_known(id) else { return true };
        // The view of this node is behind the scheduler's, so its hold may be over already.
        if node.staleness.refuses(now) {
            return true;
        }
        for candidate in self.candidates(id) {
            let pod = self.pod_by_id(candidate.pod);
            let is_due = candidate.refuses_others && pod.nominated.is_none();
            if is_due && self.nominations.is_due(&pod.uid, now) {
                if !self.nominations.bucket.take(now) {
                    return false;
                }
                self.write_nomination(candidate.pod, id, true, now);
            }
        }
        true
    }

    /// Takes back what this process nominated where the hold is over, or keeps a daemon pod out that would land without it.
    fn take_back_nominations(&mut self, now: Instant) {
        let ours = self.nominations.records.iter();
        let ours = ours.filter(|(_, record)| matches!(record.state, RecordState::Ours(_)));
        let due = ours.filter(|(_, record)| record.not_before <= now);
        let due: Vec<(Arc<str>, NodeId)> = due.map(|(uid, record)| (uid.clone(), record.node)).collect();
        for (uid, id) in due {
            self.refresh(id, now);
            let Some(pod_id) = self.pod_id(&uid) else { continue };
            let stands = self.candidates(id).iter().any(|candidate| candidate.pod == pod_id);
            let pod = self.pod_by_id(pod_id);
            if !stands
                && pod.nominated == Some(id)
                && !self.is_preempting_on(id, pod.priority)
                && self.nominations.bucket.take(now)
            {
                self.write_nomination(pod_id, id, false, now);
            }
        }
    }

    /// Whether pods of lower priority are leaving the node: the scheduler may preempt there for the nominated pod, and then the
    /// nomination is the scheduler's as much as ours.
    fn is_preempting_on(&self, id: NodeId, priority: i32) -> bool {
        let mut pods = self.node_by_id(id).pods.iter().map(|pod| self.pod_by_id(*pod));
        pods.any(|pod| pod.is_terminating && pod.priority < priority)
    }

    fn write_nomination(&mut self, pod: PodId, id: NodeId, sets: bool, now: Instant) {
        let info = self.pod_by_id(pod);
        let Some(version) = info.failed_version() else { return };
        let nomination = Nomination {
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            uid: info.uid.clone(),
            resource_version: version.into(),
            node: sets.then(|| self.node_by_id(id).name.clone()),
        };
        let state = RecordState::Asked(nomination.resource_version.clone());
        let not_before = now + INTERVAL;
        self.nominations.records.insert(nomination.uid.clone(), Record { node: id, state, not_before });
        self.effects.push(Effect::Nominate(nomination));
    }

    fn count_dropped(&mut self, looked_at: usize, now: Instant) -> usize {
        let nominations = &mut self.nominations;
        if nominations.dropped_at.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            return 0;
        }
        nominations.dropped_at = Some(now);
        nominations.queue.len().saturating_sub(looked_at)
    }

    /// Returns the daemon pods of a node, in the order of its holds, that may be nominated together: room is held for them, the
    /// scheduler has tried and failed them, and none keeps another missing daemon pod out that would land without it.
    fn candidates(&self, id: NodeId) -> Vec<Candidate> {
        let Some(node) = self.node_if_known(id) else { return Vec::new() };
        let held: Vec<&Hold> = node.holds.iter().filter(|hold| hold.state == HoldState::Held).collect();
        if held.is_empty() {
            return Vec::new();
        }
        let mut free = node.allocatable.clone();
        free.subtract(&node.used);
        let mut nominated: Vec<&Hold> = Vec::new();
        let mut candidates = Vec::new();
        for hold in &held {
            let Some(pod) = hold.pending.filter(|pod| self.may_be_nominated(*pod, hold)) else { continue };
            nominated.push(hold);
            if held.iter().any(|other| keeps_out(&free, &nominated, other)) {
                nominated.pop();
                continue;
            }
            let Some(held_since) = hold.held_since else { continue };
            let refuses_others = would_refuse(node, hold, &free);
            candidates.push(Candidate { pod, held_since, refuses_others });
        }
        candidates
    }

    fn may_be_nominated(&self, pod: PodId, hold: &Hold) -> bool {
        let pod = self.pod_by_id(pod);
        let is_ignored = pod.daemon.as_ref().is_some_and(|daemon| is_ignored(&daemon.labels));
        // What the daemon's own pod still holds would count twice in the scheduler's sum.
        let predecessor_has_left = hold.reserve == hold.need;
        pod.failed_version().is_some() && !pod.is_terminating && !is_ignored && predecessor_has_left
    }
}

/// Whether the nominated pods would keep out a missing daemon pod of the priority of one of them, which would have room without
/// them. To the scheduler a nominated pod stands before its equals; to us it does not: the smaller one may land first.
fn keeps_out(free: &Resources, nominated: &[&Hold], other: &Hold) -> bool {
    let mut beside_higher = free.clone();
    let mut equals = Resources::default();
    for hold in nominated.iter().filter(|hold| hold.daemon_set != other.daemon_set) {
        match hold.priority.cmp(&other.priority) {
            Ordering::Greater => beside_higher.subtract(&hold.need),
            Ordering::Equal => equals.add(&hold.need),
            // The scheduler does not count it against pods of higher priority.
            Ordering::Less => {}
        }
    }
    let would_land = beside_higher.lacks(&other.reserve).is_none();
    beside_higher.subtract(&equals);
    would_land && beside_higher.lacks(&other.reserve).is_some()
}

/// Whether there may be pods that fit on the node in the scheduler's eyes and that the hold refuses. Where nothing is free the
/// scheduler itself keeps them off, and a nomination would only make it slower.
fn would_refuse(node: &NodeState, hold: &Hold, free: &Resources) -> bool {
    if free.pods <= 0 {
        return false;
    }
    let takes_last_slots = free.pods <= node.holds.iter().map(|hold| hold.reserve.pods).sum();
    let wants_ports = !hold.host_ports.is_empty();
    // Pods that ask for CPU and memory need some of both; one that asks for less has been refused before.
    let some_is_free =
        free.has_some_of_all(&hold.reserve) || hold.has_refused && free.has_some_of(&hold.reserve);
    takes_last_slots || wants_ports || some_is_free
}
