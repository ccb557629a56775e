//! The rows of the table about the cache: the watches, the reserved room, and the writes to the apiserver.

use std::time::{Duration, SystemTime};

use enum_map::{Enum, EnumMap};
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry};
use strum::{IntoStaticStr, VariantNames};

use super::labels::{Label, LabelValues, label};
use super::{MetricDefinition, MetricKind, series};
use crate::cache::CacheStats;
use crate::reservation::ReservationStats;
use crate::reservation::cluster_write::{ClusterWrite, Nomination};
use crate::reservation::hold::EndReason;

label! {
    WatchedResource = "resource",
    WriteKind = "kind",
    WriteOutcome = "outcome",
}

/// A watched kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum WatchedResource {
    /// `nodes` of the core group.
    Nodes,
    /// `pods` of the core group.
    Pods,
    /// `daemonsets` of `apps`.
    DaemonSets,
    /// DaemonSets of all other groups.
    #[strum(serialize = "other_daemonsets")]
    OtherDaemonSets,
    /// `namespaces` of the core group.
    Namespaces,
    /// `priorityclasses` of `scheduling.k8s.io`.
    PriorityClasses,
    /// `limitranges` of the core group.
    LimitRanges,
    /// `runtimeclasses` of `node.k8s.io`.
    RuntimeClasses,
    /// `resourcequotas` of the core group.
    ResourceQuotas,
    /// Of the core group: those of failures to create a daemon pod.
    Events,
}

/// The kind of a write to the apiserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum WriteKind {
    /// An Event.
    Event,
    /// The Node annotation that makes the scheduler try refused pods again.
    Wake,
    /// The Node annotation that records that a daemon pod was Ready.
    FirstReady,
    /// The removal of such annotations, of DaemonSets that are gone.
    RemoveFirstReady,
    /// The nomination of a daemon pod to its node.
    Nomination,
    /// The end of a nomination.
    ClearNomination,
}

impl WriteKind {
    /// Returns `Nomination` for a write that sets a nomination, and `ClearNomination` for one that clears it.
    pub fn of(nomination: &Nomination) -> Self {
        if nomination.node.is_some() { Self::Nomination } else { Self::ClearNomination }
    }
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum WriteOutcome {
    /// The apiserver has carried the write out.
    Done,
    /// The apiserver refused the write or did not answer.
    Failed,
    /// Too many writes waited: this one was not tried.
    Dropped,
    /// The object had changed or was gone: nothing was written.
    Outdated,
}

const fn gauge(name: &'static str, labels: &'static [LabelValues], help: &'static str) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Gauge, labels, help }
}

const fn counter(name: &'static str, labels: &'static [LabelValues], help: &'static str) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Counter, labels, help }
}

pub(super) const CACHE_FRESH: MetricDefinition = gauge(
    "daemonset_warden_cache_fresh",
    &[],
    "1 while the cache is fresh enough to refuse pods: only then is room reserved. Always 0 when running standalone.",
);
const fn histogram(name: &'static str, help: &'static str) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Histogram, labels: &[], help }
}

pub(super) const LOCK_HELD: MetricDefinition = histogram(
    "daemonset_warden_cache_lock_held_seconds",
    "The time for which the cache was locked, each time. Every call of the scheduler and every event waits for the lock; a thread that the kernel takes off its core holds it for as long.",
);
pub(super) const LOCK_CPU: MetricDefinition = histogram(
    "daemonset_warden_cache_lock_cpu_seconds",
    "The processor's time of each hold of the cache's lock: as above, without the time for which the kernel ran something else.",
);
pub(super) const SYNCED: MetricDefinition = gauge(
    "daemonset_warden_cache_synced",
    &[WatchedResource::LABEL],
    "1 once every object has been listed. Stays 0 for kinds that the cluster does not have or does not show to us.",
);
pub(super) const OBJECTS: MetricDefinition =
    gauge("daemonset_warden_cache_objects", &[WatchedResource::LABEL], "Objects that are known.");
pub(super) const WATCH_LAST_EVENT: MetricDefinition = gauge(
    "daemonset_warden_watch_last_event_timestamp_seconds",
    &[WatchedResource::LABEL],
    "The time of the last bytes from the apiserver about the kind, bookmarks too, in Unix time; 0 for never. It sends a bookmark a minute: older than three minutes is stale.",
);
pub(super) const WATCH_ERRORS: MetricDefinition = counter(
    "daemonset_warden_watch_errors_total",
    &[WatchedResource::LABEL],
    "Lists and watches that failed; each is tried again.",
);
pub(super) const RELISTS: MetricDefinition = counter(
    "daemonset_warden_watch_lists_total",
    &[WatchedResource::LABEL],
    "Times that every object was listed: once at the start, and when a watch was cut off for too long.",
);
pub(super) const UNREADABLE: MetricDefinition = counter(
    "daemonset_warden_watch_unreadable_objects_total",
    &[WatchedResource::LABEL],
    "Objects that were left out because they could not be understood. Please report the log line.",
);
pub(super) const HOLDS: MetricDefinition =
    gauge("daemonset_warden_holds", &[], "Pairs of a DaemonSet and a node for which room is reserved.");
pub(super) const HOLDS_REFUSING: MetricDefinition = counter(
    "daemonset_warden_holds_refusing_total",
    &[],
    "Holds that have refused a pod for the first time.",
);
pub(super) const HOLDS_ENDED: MetricDefinition = counter(
    "daemonset_warden_holds_ended_total",
    &[EndReason::LABEL],
    "Holds that ended, whether or not they refused anything. Those that began are these and the ones in force.",
);
pub(super) const TOO_LARGE: MetricDefinition = gauge(
    "daemonset_warden_daemonsets_too_large",
    &[],
    "DaemonSets for which no room is reserved, because their selector and template have too many elements: more than 2,048, or 1,024 that are compared with nodes.",
);
pub(super) const TOO_SMALL: MetricDefinition = gauge(
    "daemonset_warden_daemon_pods_too_large",
    &[],
    "Missing daemon pods that do not fit on their node beside the daemon pods that go first: the node is too small for its daemons.",
);
pub(super) const WITHOUT_BASIS: MetricDefinition = gauge(
    "daemonset_warden_daemon_pods_without_hold",
    &[],
    "Missing daemon pods for which no room is reserved: nothing shows that they will come, or their namespace has more than 64 on the node.",
);
pub(super) const GATES_CLOSED: MetricDefinition = gauge(
    "daemonset_warden_gates_closed",
    &[],
    "Pairs of a DaemonSet and a node where ordinary pods wait for the daemon pod to be Ready.",
);
pub(super) const GATES_EXPIRED: MetricDefinition = counter(
    "daemonset_warden_gates_expired_total",
    &[],
    "Gates that opened because their time was up, not because the daemon pod was Ready.",
);
pub(super) const ASSUMED_PODS: MetricDefinition = gauge(
    "daemonset_warden_assumed_pods",
    &[],
    "Pods that the filter or `/bind` allowed and whose binding has not been seen yet.",
);
pub(super) const WAITING: MetricDefinition =
    gauge("daemonset_warden_waiting_pods", &[], "Pods that were refused on every node they were offered.");
pub(super) const NOMINATED: MetricDefinition = gauge(
    "daemonset_warden_nominated_pods",
    &[],
    "Daemon pods that this replica has nominated to their node, so that the scheduler and autoscalers see the room that is reserved for them.",
);
pub(super) const NOMINATIONS_WAITING: MetricDefinition = gauge(
    "daemonset_warden_nominations_waiting",
    &[],
    "Daemon pods that could be nominated and have to wait, because 100 are nominated already or the rate is spent.",
);
pub(super) const NOMINATION_PERMITTED: MetricDefinition = gauge(
    "daemonset_warden_nomination_permitted",
    &[],
    "1 while pods are nominated: reservation.nominate is true, and patching pods/status is granted.",
);
pub(super) const FAIL_OPEN: MetricDefinition = counter(
    "daemonset_warden_extender_fail_open_total",
    &[],
    "Calls of the scheduler that were answered without reserving room, because the cache was not fresh.",
);
pub(super) const AUDITED: MetricDefinition = counter(
    "daemonset_warden_extender_audited_nodes_total",
    &[],
    "Nodes that the filter would have refused, in Audit mode.",
);
pub(super) const CLUSTER_WRITES: MetricDefinition = counter(
    "daemonset_warden_cluster_writes_total",
    &[WriteKind::LABEL, WriteOutcome::LABEL],
    "Writes to the apiserver. `dropped` Events only mean that there were many; a `dropped` nomination is a daemon pod that had to wait for its own, counted once in two seconds. `outdated`: the object had changed or was gone.",
);

/// Handles to the metrics about the cluster.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// 1 while a refusal may be based on the cache, else 0.
    pub cache_fresh: IntGauge,
    lock_held: Histogram,
    lock_cpu: Histogram,
    synced: EnumMap<WatchedResource, IntGauge>,
    objects: EnumMap<WatchedResource, IntGauge>,
    watch_last_event: EnumMap<WatchedResource, Gauge>,
    watch_errors: EnumMap<WatchedResource, IntCounter>,
    relists: EnumMap<WatchedResource, IntCounter>,
    unreadable: EnumMap<WatchedResource, IntCounter>,
    holds: IntGauge,
    holds_refusing: IntCounter,
    holds_ended: EnumMap<EndReason, IntCounter>,
    too_large: IntGauge,
    too_small: IntGauge,
    without_basis: IntGauge,
    gates_closed: IntGauge,
    gates_expired: IntCounter,
    assumed_pods: IntGauge,
    waiting: IntGauge,
    nominated: IntGauge,
    nominations_waiting: IntGauge,
    /// 1 while the service account may patch pods/status for nominations, else 0.
    pub nomination_permitted: IntGauge,
    /// Calls of the scheduler that were answered without the cache, because it was not fresh.
    pub fail_open: IntCounter,
    audited: IntCounter,
    cluster_writes: EnumMap<WriteKind, EnumMap<WriteOutcome, IntCounter>>,
}

impl ClusterMetrics {
    pub(super) fn new(new: &Registry) -> Self {
        let writes = series::counter_vec(new, &CLUSTER_WRITES);
        Self {
            cache_fresh: series::int_gauge(new, &CACHE_FRESH),
            lock_held: series::lock_histogram(new, &LOCK_HELD),
            lock_cpu: series::lock_histogram(new, &LOCK_CPU),
            synced: series::int_gauges(new, &SYNCED),
            objects: series::int_gauges(new, &OBJECTS),
            watch_last_event: series::gauges(new, &WATCH_LAST_EVENT),
            watch_errors: series::counters(new, &WATCH_ERRORS),
            relists: series::counters(new, &RELISTS),
            unreadable: series::counters(new, &UNREADABLE),
            holds: series::int_gauge(new, &HOLDS),
            holds_refusing: series::counter(new, &HOLDS_REFUSING),
            holds_ended: series::counters(new, &HOLDS_ENDED),
            too_large: series::int_gauge(new, &TOO_LARGE),
            too_small: series::int_gauge(new, &TOO_SMALL),
            without_basis: series::int_gauge(new, &WITHOUT_BASIS),
            gates_closed: series::int_gauge(new, &GATES_CLOSED),
            gates_expired: series::counter(new, &GATES_EXPIRED),
            assumed_pods: series::int_gauge(new, &ASSUMED_PODS),
            waiting: series::int_gauge(new, &WAITING),
            nominated: series::int_gauge(new, &NOMINATED),
            nominations_waiting: series::int_gauge(new, &NOMINATIONS_WAITING),
            nomination_permitted: series::int_gauge(new, &NOMINATION_PERMITTED),
            fail_open: series::counter(new, &FAIL_OPEN),
            audited: series::counter(new, &AUDITED),
            cluster_writes: EnumMap::from_fn(|kind: WriteKind| {
                EnumMap::from_fn(|outcome: WriteOutcome| {
                    writes.with_label_values(&[kind.as_str(), outcome.as_str()])
                })
            }),
        }
    }

    /// Records a hold of the cache's lock: its time, and the processor's time of it.
    pub fn record_lock(&self, held: Duration, cpu: Duration) {
        self.lock_held.observe(held.as_secs_f64());
        self.lock_cpu.observe(cpu.as_secs_f64());
    }

    /// Sets the gauge of kinds of which every object has been listed.
    pub fn synced(&self, resource: WatchedResource, synced: bool) {
        self.synced[resource].set(i64::from(synced));
    }

    /// Records that the apiserver has just sent something about a kind.
    pub fn record_watch_event(&self, resource: WatchedResource) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.watch_last_event[resource].set(now.as_secs_f64());
    }

    /// Counts a list or a watch that failed.
    pub fn watch_error(&self, resource: WatchedResource) {
        self.watch_errors[resource].inc();
    }

    /// Counts a list of every object of a kind, the first one too.
    pub fn relist(&self, resource: WatchedResource) {
        self.relists[resource].inc();
    }

    /// Counts an object that was left out because it could not be decoded.
    pub fn unreadable(&self, resource: WatchedResource) {
        self.unreadable[resource].inc();
    }

    /// Counts nodes that the filter allowed only because the mode is Audit.
    pub fn record_audited(&self, nodes: u64) {
        self.audited.inc_by(nodes);
    }

    /// Counts the decision behind a write: the first refusal or the end of a hold, or the expiry of a gate. Other writes have none.
    /// [`Self::record_write`] counts the write itself.
    pub fn record_decision(&self, write: &ClusterWrite) {
        match write {
            ClusterWrite::HoldingRoom(_) => self.holds_refusing.inc(),
            ClusterWrite::HoldEnded(_, reason) => {
                self.holds_ended[*reason].inc();
            }
            ClusterWrite::GateExpired(_) | ClusterWrite::GateExpiredForBindings(_) => {
                self.gates_expired.inc()
            }
            ClusterWrite::NodeTooSmall(..)
            | ClusterWrite::TooLarge(_)
            | ClusterWrite::Wake(_)
            | ClusterWrite::RecordFirstReady { .. }
            | ClusterWrite::RemoveFirstReady { .. }
            | ClusterWrite::Nominate(_) => {}
        }
    }

    /// Counts daemon pods that could not be nominated yet, for want of rate or number, as dropped nominations.
    pub fn nominations_dropped(&self, count: usize) {
        self.cluster_writes[WriteKind::Nomination][WriteOutcome::Dropped].inc_by(count as u64);
    }

    /// Counts a write to the apiserver.
    pub fn record_write(&self, kind: WriteKind, outcome: WriteOutcome) {
        self.cluster_writes[kind][outcome].inc();
    }

    /// Sets the gauges of objects, holds, gates and pods.
    pub fn record_stats(&self, cache: &CacheStats, reservation: &ReservationStats) {
        let objects = [
            (WatchedResource::Nodes, cache.nodes),
            (WatchedResource::Pods, cache.pods),
            (WatchedResource::DaemonSets, cache.daemon_sets),
            (WatchedResource::OtherDaemonSets, cache.other_daemon_sets),
            (WatchedResource::Namespaces, cache.namespaces),
            (WatchedResource::PriorityClasses, cache.priority_classes),
            (WatchedResource::LimitRanges, cache.limit_ranges),
            (WatchedResource::RuntimeClasses, cache.runtime_classes),
            (WatchedResource::ResourceQuotas, cache.resource_quotas),
            (WatchedResource::Events, cache.failing_daemon_sets),
        ];
        for (resource, count) in objects {
            set(&self.objects[resource], count);
        }
        set(&self.holds, reservation.holds);
        set(&self.too_large, cache.too_large);
        set(&self.too_small, reservation.too_small);
        set(&self.without_basis, reservation.without_basis);
        set(&self.gates_closed, reservation.gates_closed);
        set(&self.assumed_pods, reservation.assumed_pods);
        set(&self.waiting, reservation.waiting);
        set(&self.nominated, reservation.nominated);
        set(&self.nominations_waiting, reservation.nominations_waiting);
    }
}

fn set(gauge: &IntGauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}
