//! Nomination: the scheduler and the autoscalers see the room that is held for a daemon pod.
//!
//! kube-scheduler counts the requests of a pod with `status.nominatedNodeName` on that node, against every pod of the same or lower
//! priority (kubernetes v1.36.3 pkg/scheduler/framework/runtime/framework.go, `addGENominatedPods`), and the cluster-autoscaler
//! adds the pod to its simulation (core/podlistprocessor/filter_out_expendable.go, `addPreemptingPodsToSnapshot`). So a daemon pod
//! is nominated to its node if the scheduler has tried and failed it, and a hold refuses other pods for it or would. The scheduler
//! then places the other pods on other nodes, or reports them as Unschedulable in its own words, and the autoscaler adds a node.
//!
//! ```text
//!              room is held, an attempt failed               written
//!   ┌─▶ Idle ───────────────────────────────────▶ Setting ─────────────▶ Set ◀───────┐
//!   │    ▲  not written, or no answer in time        │                    │  │        │ not written, or no answer in time
//!   │    └───────────────────────────────────────────┘                    │  ▼        │
//!   │                                        the scheduler cleared it     │ Clearing ─┘
//!   └─────────────────────────────────────────────────────────────────────┘  │  the hold has ended
//!   └────────────────────────────────────────────────────────────────────────┘  written
//! ```
//! The scheduler clears a nomination with each failed attempt, and that wakes the pods that the nomination kept off. So a pod is
//! nominated again, at most once in two seconds, and all pods together within a number and a rate. A nomination that the warden did
//! not write is never changed. Of several replicas the one that judges alone nominates.

mod adoption;
mod candidates;
mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use self::queue::{NominationQueue, QueuePlace};
use super::Reservation;
use super::cluster_write::{ClusterWrite, Nomination};
use super::hold::{Hold, HoldState};
use super::judging::Judging;
use super::token_bucket::TokenBucket;
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, NodeId, PodId};
use crate::daemonset::placement::admits;

/// The shortest time between two nominations of one pod. Without it there was a loop of 80 patches a second: the scheduler clears
/// the nomination, which wakes the pods that it kept off, other nominated ones among them.
const RENOMINATION_INTERVAL: Duration = Duration::from_secs(2);
/// The most pods that this process nominates at a time. Each nominated pod costs the scheduler time with every pod that it places,
/// for the scheduler copies the nominated pods of each node that it considers. An event that makes the scheduler try all of them
/// costs as many patches, of the 100 that it may send at once by default (docs/scheduler-performance.md, "Nomination").
pub const NOMINATED_AT_ONCE: usize = 100;
/// The writes a second for all pods together. Each nomination ends in a failed attempt and a patch of the scheduler, which may send
/// 50 a second by default.
const WRITES_PER_SECOND: u32 = 25;
/// The tokens that a write costs while the scheduler is busy, instead of one: five writes a second are left, a tenth of the
/// scheduler's own rate.
const COST_WHILE_BUSY: u32 = 5;
/// The bindings a second from which the scheduler counts as busy.
const BUSY_BINDINGS: u32 = 10;
/// The number of writes that may be sent at once after a pause: the burst of the token bucket.
const WRITE_BURST: u32 = 50;
/// The pause after the apiserver has refused to nominate one pod, such as by an admission policy of the cluster.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// The most failed ordinary pods that are examined to find one that a nomination keeps off.
const PODS_LOOKED_AT: usize = 256;
/// The time after which a write without an answer counts as lost; longer than the timeout of a write.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The apiserver's answer to a [`Nomination`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NominationOutcome {
    /// The nomination was written.
    Written {
        /// The pod's resource version after the write.
        resource_version: String,
    },
    /// Nothing was written, for the pod has changed, is bound or gone.
    Outdated,
    /// The apiserver refused the write for good.
    Refused,
    /// There was no answer, or one that is not about this pod.
    Unknown,
}

/// The nominations of this process.
#[derive(Debug)]
pub struct Nominations {
    /// The pods that are nominated or were lately, by UID.
    records: HashMap<Arc<str>, NominationRecord>,
    queue: NominationQueue,
    bucket: TokenBucket,
    bindings: RecentBindings,
    is_permitted: bool,
    dropped_at: Option<Instant>,
}

#[derive(Debug)]
struct NominationRecord {
    node: NodeId,
    state: NominationState,
    /// The earliest time of the next write.
    not_before: Instant,
}

/// The state of a pod's nomination, as drawn above. `over` is the resource version of the pod on which the write was decided.
#[derive(Debug, PartialEq, Eq)]
enum NominationState {
    Idle,
    Setting { over: Box<str>, until: Instant },
    Set { over: Box<str> },
    Clearing { over: Box<str>, until: Instant },
}

/// The bindings of this second and of the one before.
#[derive(Debug, Default)]
struct RecentBindings {
    since: Option<Instant>,
    count: u32,
    before: u32,
}

impl Default for Nominations {
    fn default() -> Self {
        Self {
            records: HashMap::new(),
            queue: NominationQueue::default(),
            bucket: TokenBucket::new(WRITE_BURST, WRITES_PER_SECOND),
            bindings: RecentBindings::default(),
            is_permitted: true,
            dropped_at: None,
        }
    }
}

impl Nominations {
    /// The number of pods that this process has nominated, those with a nomination that is being taken back too.
    pub fn len(&self) -> usize {
        let is_ours = |record: &&NominationRecord| {
            !matches!(record.state, NominationState::Idle | NominationState::Setting { .. })
        };
        self.records.values().filter(is_ours).count()
    }

    /// Returns true if this process has nominated no pod.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of pods that could be nominated now and are not yet.
    pub fn waiting(&self) -> usize {
        self.queue.pods
    }

    /// Returns true if no pod or node is recorded.
    #[cfg(test)]
    pub fn remembers_nothing(&self) -> bool {
        let NominationQueue { due, paused, places, pods } = &self.queue;
        self.records.is_empty() && due.is_empty() && paused.is_empty() && places.is_empty() && *pods == 0
    }

    /// Forgets a pod that is bound, has ended or is gone.
    pub fn forget(&mut self, uid: &str) {
        self.records.remove(uid);
    }

    /// Forgets a node whose name nothing mentions any more.
    pub(super) fn forget_node(&mut self, id: NodeId) {
        self.queue.put(id, None);
    }

    /// Updates the record of a pod that changed: once another client has changed the nomination, it is not this process's any more.
    pub fn observe(&mut self, uid: &str, nominated: Option<NodeId>, resource_version: Option<&str>) {
        let Some(record) = self.records.get_mut(uid) else { return };
        if let NominationState::Set { over } | NominationState::Clearing { over, .. } = &record.state
            && nominated != Some(record.node)
            && resource_version != Some(over)
        {
            record.state = NominationState::Idle;
        }
    }

    /// Forgets all pods: another replica cares for them.
    pub(super) fn forget_all(&mut self) {
        self.records.clear();
    }

    /// Counts a binding, to measure how busy the scheduler is.
    pub fn note_binding(&mut self, now: Instant) {
        self.bindings.note(now);
    }

    /// Takes the cost of one write from the bucket. Returns false, and takes nothing, if there is too little.
    fn take(&mut self, now: Instant) -> bool {
        let cost = if self.bindings.in_a_second(now) >= BUSY_BINDINGS { COST_WHILE_BUSY } else { 1 };
        self.bucket.take(cost, now)
    }

    /// Counts writes without an answer in time as not done, and drops idle records. Returns the number of pods that are nominated,
    /// or about to be.
    fn expire(&mut self, now: Instant) -> usize {
        for record in self.records.values_mut() {
            record.state = match std::mem::replace(&mut record.state, NominationState::Idle) {
                NominationState::Setting { until, .. } if until <= now => NominationState::Idle,
                NominationState::Clearing { over, until } if until <= now => NominationState::Set { over },
                state => state,
            };
        }
        let is_idle = |record: &NominationRecord| record.state == NominationState::Idle;
        self.records.retain(|_, record| !is_idle(record) || record.not_before > now);
        self.records.values().filter(|record| !is_idle(record)).count()
    }
}

impl RecentBindings {
    fn note(&mut self, now: Instant) {
        self.roll(now);
        self.count = self.count.saturating_add(1);
    }

    /// Returns the number of bindings in this second or in the one before, whichever is larger, so that a second that has just
    /// begun does not count as idle.
    fn in_a_second(&mut self, now: Instant) -> u32 {
        self.roll(now);
        self.count.max(self.before)
    }

    fn roll(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= Duration::from_secs(1) {
            self.before = if passed < Duration::from_secs(2) { self.count } else { 0 };
            self.count = 0;
            self.since = Some(now);
        }
    }
}

impl Reservation {
    /// Permits nominations, or forbids them if the apiserver does not let this process patch pods/status.
    pub fn permit_nomination(&mut self, is_permitted: bool) {
        self.nominations.is_permitted = is_permitted;
    }

    /// Decides the nominations to write and those to take back, for [`Reservation::take_writes`]. Returns the number of pods that
    /// were left out for want of rate or number. For two seconds after it has returned one, it returns 0.
    ///
    /// Call it on each tick. It does nothing while the cache lacks events, or if nominations are not configured or not permitted.
    pub fn nominate(&mut self, cache: &Cache, now: Instant) -> usize {
        if !self.policy.reservation.nominates()
            || self.judging == Judging::Standby
            || !self.nominations.is_permitted
            || self.freshness.lacks_events()
        {
            return 0;
        }
        let mut nominated = self.nominations.expire(now);
        self.take_back_nominations(cache, now);
        self.let_holds_end(cache, now);
        while let Some(node) = self.nominations.queue.first_over(now) {
            self.refresh(cache, node, now);
            self.enqueue_nominations(cache, node, now);
        }
        while let Some(node) = self.nominations.queue.first() {
            self.refresh(cache, node, now);
            for pod in self.due_pods(cache, node, now) {
                if nominated >= NOMINATED_AT_ONCE || !self.nominations.take(now) {
                    self.enqueue_nominations(cache, node, now);
                    return self.count_dropped(now);
                }
                let name = cache.node_by_id(node).name.clone();
                self.write_nomination(cache, pod, node, Some(name), now);
                nominated += 1;
            }
            // The node leaves its place at the front: its pods are being written, or none was due after the refresh.
            self.enqueue_nominations(cache, node, now);
        }
        0
    }

    /// Records the answer to a write of `status.nominatedNodeName`. Call it once for each [`ClusterWrite::Nominate`]. Only the
    /// answer to the pod's last write counts.
    pub fn nomination_done(
        &mut self,
        cache: &Cache,
        nomination: &Nomination,
        outcome: &NominationOutcome,
        now: Instant,
    ) {
        let seen = cache.pod(&nomination.uid).and_then(|pod| pod.failed_version().map(Box::<str>::from));
        let Some(record) = self.nominations.records.get_mut(&nomination.uid) else { return };
        if *outcome == NominationOutcome::Refused {
            record.not_before = now + REFUSED_PAUSE;
        }
        let over = &nomination.resource_version;
        record.state = match std::mem::replace(&mut record.state, NominationState::Idle) {
            NominationState::Setting { over: asked, .. } if asked == *over && nomination.node.is_some() => {
                match outcome {
                    // If the cache has a later version, others may have cleared and set the nomination since.
                    NominationOutcome::Written { resource_version }
                        if seen.is_some_and(|seen| seen == *over || *seen == **resource_version) =>
                    {
                        NominationState::Set { over: asked }
                    }
                    _ => NominationState::Idle,
                }
            }
            NominationState::Clearing { over: asked, .. } if asked == *over && nomination.node.is_none() => {
                match outcome {
                    NominationOutcome::Written { .. } => NominationState::Idle,
                    _ => NominationState::Set { over: asked },
                }
            }
            state => state,
        };
        let node = record.node;
        self.refresh(cache, node, now);
        self.enqueue_nominations(cache, node, now);
    }

    /// Computes a node's place in the queue from its holds and nominations; the node leaves the queue if no pod of it needs a
    /// nomination. Call it after any change of either: a first refusal, a nomination that was written or answered, a pause that is
    /// over, the deletion of the Node. A refresh of a dirty node calls it. Does nothing if nominations are off.
    pub(super) fn enqueue_nominations(&mut self, cache: &Cache, id: NodeId, now: Instant) {
        if !self.policy.reservation.nominates() {
            return;
        }
        let mut place: Option<QueuePlace> = None;
        for candidate in
            self.nomination_candidates(cache, id).iter().filter(|candidate| candidate.needs_nomination)
        {
            let due_at = self.due_at(cache, candidate.pod, id, now);
            place = Some(match (place, due_at) {
                (Some(QueuePlace::Due { held_since, pods }), None) => {
                    QueuePlace::Due { held_since: held_since.min(candidate.held_since), pods: pods + 1 }
                }
                (_, None) => QueuePlace::Due { held_since: candidate.held_since, pods: 1 },
                (Some(QueuePlace::Paused { until }), Some(due_at)) => {
                    QueuePlace::Paused { until: until.min(due_at) }
                }
                (None, Some(due_at)) => QueuePlace::Paused { until: due_at },
                (Some(due), Some(_)) => due,
            });
        }
        self.nominations.queue.put(id, place);
    }

    /// Returns the time from which on a pod may be nominated to a node; `None` if it may be nominated now.
    fn due_at(&self, cache: &Cache, pod: PodId, id: NodeId, now: Instant) -> Option<Instant> {
        // The cache is behind for this node, so its hold may have ended already.
        if self.nodes[id].freshness.refuses(now) {
            return Some(now + RENOMINATION_INTERVAL);
        }
        let record = self.nominations.records.get(&cache.pod_by_id(pod).uid)?;
        let answer_by = match record.state {
            NominationState::Setting { until, .. } | NominationState::Clearing { until, .. } => until,
            NominationState::Idle | NominationState::Set { .. } => now,
        };
        Some(record.not_before.max(answer_by)).filter(|at| *at > now)
    }

    fn due_pods(&self, cache: &Cache, id: NodeId, now: Instant) -> Vec<PodId> {
        let candidates = self.nomination_candidates(cache, id).into_iter();
        let due = candidates.filter(|candidate| {
            candidate.needs_nomination && self.due_at(cache, candidate.pod, id, now).is_none()
        });
        due.map(|candidate| candidate.pod).collect()
    }

    /// Takes back the nominations of this process whose hold has ended, or that keep out a daemon pod which would land without
    /// them.
    fn take_back_nominations(&mut self, cache: &Cache, now: Instant) {
        let mut ours: BTreeMap<NodeId, Vec<Arc<str>>> = BTreeMap::new();
        for (uid, record) in &self.nominations.records {
            if matches!(record.state, NominationState::Set { .. }) && record.not_before <= now {
                ours.entry(record.node).or_default().push(uid.clone());
            }
        }
        for (id, uids) in ours {
            self.refresh(cache, id, now);
            let standing: Vec<PodId> =
                self.nomination_candidates(cache, id).iter().map(|candidate| candidate.pod).collect();
            for uid in uids {
                let Some(pod_id) = cache.pod_id(&uid) else { continue };
                let pod = cache.pod_by_id(pod_id);
                let is_over = !standing.contains(&pod_id) && pod.nominated == Some(id);
                // The pod was orphaned: it is no daemon pod any more.
                if pod.failed_version().is_none() {
                    self.nominations.forget(&uid);
                } else if is_over && !is_preempting_on(cache, id, pod.priority) && self.nominations.take(now)
                {
                    self.write_nomination(cache, pod_id, id, None, now);
                }
            }
        }
    }

    /// Lets the time of holds run while the scheduler itself keeps pods off: it does not call the extender for a node where the
    /// nominated pod leaves no room.
    fn let_holds_end(&mut self, cache: &Cache, now: Instant) {
        let ours = self.nominations.records.iter();
        let ours = ours.filter(|(_, record)| matches!(record.state, NominationState::Set { .. }));
        let ours: Vec<(Arc<str>, NodeId)> = ours.map(|(uid, record)| (uid.clone(), record.node)).collect();
        for (uid, id) in ours {
            self.refresh(cache, id, now);
            let (Some(pod), Some(node)) = (cache.pod_id(&uid), cache.node_if_known(id)) else { continue };
            let is_its = |hold: &Hold| hold.state == HoldState::Held && hold.pod.pending == Some(pod);
            let Some(hold) = self.nodes[id].holds.iter_mut().find(|hold| is_its(hold)) else { continue };
            if hold.is_running() {
                continue;
            }
            let Some(kept_off) = kept_off_by(cache, hold, node) else { continue };
            self.ticking.insert(id);
            hold.record_refusal(&kept_off, now);
            if hold.has_first_refusal() {
                let daemon_set = hold.pod.daemon_set;
                self.begin_refusing(cache, id, &[daemon_set], now);
            }
        }
    }

    fn write_nomination(
        &mut self,
        cache: &Cache,
        pod: PodId,
        id: NodeId,
        node: Option<Arc<str>>,
        now: Instant,
    ) {
        let info = cache.pod_by_id(pod);
        let Some(version) = info.failed_version() else { return };
        let over: Box<str> = version.into();
        let nomination = Nomination {
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            uid: info.uid.clone(),
            resource_version: over.clone(),
            node,
        };
        let until = now + ANSWER_TIMEOUT;
        let state = match nomination.node {
            Some(_) => NominationState::Setting { over, until },
            None => NominationState::Clearing { over, until },
        };
        let record = NominationRecord { node: id, state, not_before: now + RENOMINATION_INTERVAL };
        self.nominations.records.insert(nomination.uid.clone(), record);
        self.writes.push(ClusterWrite::Nominate(nomination));
    }

    fn count_dropped(&mut self, now: Instant) -> usize {
        let nominations = &mut self.nominations;
        if nominations.dropped_at.is_some_and(|at| now.saturating_duration_since(at) < RENOMINATION_INTERVAL)
        {
            return 0;
        }
        nominations.dropped_at = Some(now);
        nominations.waiting()
    }
}

/// Returns the UID of a pod that the scheduler keeps off a node because of the nominated pod: the scheduler has tried and failed
/// it, its priority is not higher, and it would fit without the nominated pod. `None` if none of the first [`PODS_LOOKED_AT`]
/// failed pods is such a pod.
fn kept_off_by(cache: &Cache, hold: &Hold, state: &NodeInfo) -> Option<Arc<str>> {
    let node = state.node.as_ref()?;
    let mut beside = state.requested.clone();
    beside.add(hold.pod.need());
    let mut kept_off = cache.failed_ordinary_pods().take(PODS_LOOKED_AT).filter(|pod| {
        pod.priority <= hold.pod.priority()
            && state.allocatable.has_room_beside(&state.requested, &pod.requests)
            && !state.allocatable.has_room_beside(&beside, &pod.requests)
            && pod.placement.as_ref().is_some_and(|own| admits(own, &own.tolerations, node, |_| false))
    });
    kept_off.next().map(|pod| pod.uid.clone())
}

/// Returns true while pods of lower priority are leaving the node. The scheduler may be preempting there for the nominated pod, and
/// then it needs the nomination.
fn is_preempting_on(cache: &Cache, id: NodeId, priority: i32) -> bool {
    let mut pods = cache.node_by_id(id).pods.iter().map(|pod| cache.pod_by_id(*pod));
    pods.any(|pod| pod.is_terminating && pod.priority < priority)
}
