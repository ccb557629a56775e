//! The rows of the table about the cache: the watches, the reserved room, and the writes to the apiserver.

use std::time::SystemTime;

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

use super::{Definition, Kind, counters, gauges, int_gauges};
use crate::cache::CacheStats;
use crate::reservation::ReservationStats;
use crate::reservation::cluster_write::{ClusterWrite, Nomination};
use crate::reservation::hold::EndReason;

label!(
    /// The watched kind.
    WatchedResource, "resource", {
        /// Nodes.
        Nodes = "nodes",
        /// Pods.
        Pods = "pods",
        /// DaemonSets of `apps`.
        DaemonSets = "daemonsets",
        /// DaemonSets of other groups.
        OtherDaemonSets = "other_daemonsets",
        /// Namespaces.
        Namespaces = "namespaces",
        /// Priority classes.
        PriorityClasses = "priorityclasses",
        /// Limit ranges.
        LimitRanges = "limitranges",
        /// Runtime classes.
        RuntimeClasses = "runtimeclasses",
        /// Quotas.
        ResourceQuotas = "resourcequotas",
    }
);

label!(
    /// The kind of a write to the apiserver.
    WriteKind, "kind", {
        /// An Event.
        Event = "event",
        /// The Node annotation that makes the scheduler try refused pods again.
        Wake = "wake",
        /// The Node annotation that records that a daemon pod was Ready.
        FirstReady = "first_ready",
        /// The nomination of a daemon pod to its node.
        Nomination = "nomination",
        /// The end of a nomination.
        ClearNomination = "clear_nomination",
    }
);

impl WriteKind {
    /// The write that a nomination is: it sets one or clears it.
    pub fn of(nomination: &Nomination) -> Self {
        if nomination.node.is_some() { Self::Nomination } else { Self::ClearNomination }
    }
}

label!(
    /// The outcome of a write.
    WriteOutcome, "outcome", {
        /// It was written.
        Done = "done",
        /// The apiserver refused it or did not answer.
        Failed = "failed",
        /// Too many waited: it was not tried.
        Dropped = "dropped",
        /// The object had changed or was gone: nothing was written.
        Outdated = "outdated",
    }
);

/// [`EndReason::as_str`] of each of [`EndReason::ALL`].
const END_LABEL: (&str, &[&str]) =
    ("reason", &["Landed", "NotWanted", "CannotFit", "HoldTimeout", "WaitTimeout", "NodeGone"]);

const fn gauge(
    name: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Gauge, labels, help }
}

const fn counter(
    name: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Counter, labels, help }
}

pub(super) const CACHE_FRESH: Definition = gauge(
    "daemonset_warden_cache_fresh",
    &[],
    "1 while the cache is fresh enough to refuse pods: only then is room reserved. Always 0 when running standalone.",
);
pub(super) const SYNCED: Definition = gauge(
    "daemonset_warden_cache_synced",
    &[WatchedResource::LABEL],
    "1 once every object has been listed. Stays 0 for kinds that the cluster does not have or does not show to us.",
);
pub(super) const OBJECTS: Definition =
    gauge("daemonset_warden_cache_objects", &[WatchedResource::LABEL], "Objects that are known.");
pub(super) const WATCH_LAST_EVENT: Definition = gauge(
    "daemonset_warden_watch_last_event_timestamp_seconds",
    &[WatchedResource::LABEL],
    "The time of the last bytes from the apiserver about the kind, bookmarks too, in Unix time; 0 for never. It sends a bookmark a minute: older than three minutes is stale.",
);
pub(super) const WATCH_ERRORS: Definition = counter(
    "daemonset_warden_watch_errors_total",
    &[WatchedResource::LABEL],
    "Lists and watches that failed; each is tried again.",
);
pub(super) const RELISTS: Definition = counter(
    "daemonset_warden_watch_lists_total",
    &[WatchedResource::LABEL],
    "Times that every object was listed: once at the start, and when a watch was cut off for too long.",
);
pub(super) const UNREADABLE: Definition = counter(
    "daemonset_warden_watch_unreadable_objects_total",
    &[WatchedResource::LABEL],
    "Objects that were left out because they could not be understood. Please report the log line.",
);
pub(super) const HOLDS: Definition =
    gauge("daemonset_warden_holds", &[], "Pairs of a DaemonSet and a node for which room is kept now.");
pub(super) const HOLDS_REFUSING: Definition = counter(
    "daemonset_warden_holds_refusing_total",
    &[],
    "Holds that have refused a pod for the first time.",
);
pub(super) const HOLDS_ENDED: Definition = counter(
    "daemonset_warden_holds_ended_total",
    &[END_LABEL],
    "Holds that ended, whether or not they refused anything. Those that began are these and the ones in force.",
);
pub(super) const GATES_CLOSED: Definition = gauge(
    "daemonset_warden_gates_closed",
    &[],
    "Pairs of a DaemonSet and a node where ordinary pods wait for the daemon pod to be Ready.",
);
pub(super) const GATES_EXPIRED: Definition = counter(
    "daemonset_warden_gates_expired_total",
    &[],
    "Gates that opened because their time was up, not because the daemon pod was Ready.",
);
pub(super) const ASSUMED_PODS: Definition = gauge(
    "daemonset_warden_assumed_pods",
    &[],
    "Pods that passed the filter and whose binding has not been seen yet.",
);
pub(super) const WAITING: Definition =
    gauge("daemonset_warden_waiting_pods", &[], "Pods that were refused on every node they were offered.");
pub(super) const NOMINATED: Definition = gauge(
    "daemonset_warden_nominated_pods",
    &[],
    "Daemon pods that this replica has nominated to their node, so that the scheduler and autoscalers see the room that is kept for them.",
);
pub(super) const NOMINATIONS_WAITING: Definition = gauge(
    "daemonset_warden_nominations_waiting",
    &[],
    "Daemon pods that could be nominated and have to wait, because 100 are nominated already or the rate is spent.",
);
pub(super) const NOMINATION_PERMITTED: Definition = gauge(
    "daemonset_warden_nomination_permitted",
    &[],
    "1 while pods are nominated: reservation.nominate is true, and patching pods/status is granted.",
);
pub(super) const FAIL_OPEN: Definition = counter(
    "daemonset_warden_extender_fail_open_total",
    &[],
    "Calls of the filter verb that were answered without reserving room, because the cache was not fresh.",
);
pub(super) const AUDITED: Definition = counter(
    "daemonset_warden_extender_audited_nodes_total",
    &[],
    "Nodes that a pod would have been kept from, in Audit mode.",
);
pub(super) const CLUSTER_WRITES: Definition = counter(
    "daemonset_warden_cluster_writes_total",
    &[WriteKind::LABEL, WriteOutcome::LABEL],
    "Writes to the apiserver. `dropped` Events only mean that there were many; a `dropped` nomination is a daemon pod that had to wait for its own, counted once in two seconds. `outdated`: the object had changed or was gone.",
);

/// Handles to them.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// See the table, as for the others.
    pub cache_fresh: IntGauge,
    synced: Vec<IntGauge>,
    objects: Vec<IntGauge>,
    watch_last_event: Vec<Gauge>,
    watch_errors: Vec<IntCounter>,
    relists: Vec<IntCounter>,
    unreadable: Vec<IntCounter>,
    holds: IntGauge,
    holds_refusing: IntCounter,
    holds_ended: Vec<IntCounter>,
    gates_closed: IntGauge,
    gates_expired: IntCounter,
    assumed_pods: IntGauge,
    waiting: IntGauge,
    nominated: IntGauge,
    nominations_waiting: IntGauge,
    /// See the table.
    pub nomination_permitted: IntGauge,
    /// See the table.
    pub fail_open: IntCounter,
    audited: IntCounter,
    cluster_writes: Vec<IntCounter>,
}

impl ClusterMetrics {
    pub(super) fn new(new: &Registry) -> Self {
        Self {
            cache_fresh: int_gauges(new, &CACHE_FRESH).remove(0),
            synced: int_gauges(new, &SYNCED),
            objects: int_gauges(new, &OBJECTS),
            watch_last_event: gauges(new, &WATCH_LAST_EVENT),
            watch_errors: counters(new, &WATCH_ERRORS),
            relists: counters(new, &RELISTS),
            unreadable: counters(new, &UNREADABLE),
            holds: int_gauges(new, &HOLDS).remove(0),
            holds_refusing: counters(new, &HOLDS_REFUSING).remove(0),
            holds_ended: counters(new, &HOLDS_ENDED),
            gates_closed: int_gauges(new, &GATES_CLOSED).remove(0),
            gates_expired: counters(new, &GATES_EXPIRED).remove(0),
            assumed_pods: int_gauges(new, &ASSUMED_PODS).remove(0),
            waiting: int_gauges(new, &WAITING).remove(0),
            nominated: int_gauges(new, &NOMINATED).remove(0),
            nominations_waiting: int_gauges(new, &NOMINATIONS_WAITING).remove(0),
            nomination_permitted: int_gauges(new, &NOMINATION_PERMITTED).remove(0),
            fail_open: counters(new, &FAIL_OPEN).remove(0),
            audited: counters(new, &AUDITED).remove(0),
            cluster_writes: counters(new, &CLUSTER_WRITES),
        }
    }

    /// Sets the gauge of kinds of which every object has been listed.
    pub fn synced(&self, resource: WatchedResource, synced: bool) {
        self.synced[resource as usize].set(i64::from(synced));
    }

    /// Records that the apiserver has just sent something about a kind.
    pub fn record_watch_event(&self, resource: WatchedResource) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.watch_last_event[resource as usize].set(now.as_secs_f64());
    }

    /// Counts a list or a watch that failed.
    pub fn watch_error(&self, resource: WatchedResource) {
        self.watch_errors[resource as usize].inc();
    }

    /// Counts a list.
    pub fn relist(&self, resource: WatchedResource) {
        self.relists[resource as usize].inc();
    }

    /// Counts an object that could not be understood.
    pub fn unreadable(&self, resource: WatchedResource) {
        self.unreadable[resource as usize].inc();
    }

    /// Counts nodes that would have been refused.
    pub fn audited(&self, nodes: u64) {
        self.audited.inc_by(nodes);
    }

    /// Counts the decision behind a write: an end of a hold or gate, or the first refusal of a hold. [`Self::record_write`] counts the
    /// write itself.
    pub fn record_decision(&self, write: &ClusterWrite) {
        match write {
            ClusterWrite::HoldingRoom(_) => self.holds_refusing.inc(),
            ClusterWrite::HoldEnded(_, reason) => {
                if let Some(series) = EndReason::ALL.iter().position(|known| known == reason) {
                    self.holds_ended[series].inc();
                }
            }
            ClusterWrite::GateExpired(_) => self.gates_expired.inc(),
            ClusterWrite::Wake(_) | ClusterWrite::RecordFirstReady { .. } | ClusterWrite::Nominate(_) => {}
        }
    }

    /// Counts daemon pods that could not be nominated yet, for want of rate.
    pub fn nominations_dropped(&self, count: usize) {
        self.series(WriteKind::Nomination, WriteOutcome::Dropped).inc_by(count as u64);
    }

    /// Counts a write to the apiserver.
    pub fn record_write(&self, kind: WriteKind, outcome: WriteOutcome) {
        self.series(kind, outcome).inc();
    }

    fn series(&self, kind: WriteKind, outcome: WriteOutcome) -> &IntCounter {
        &self.cluster_writes[kind as usize * WriteOutcome::LABEL.1.len() + outcome as usize]
    }

    /// Shows how much of everything there is.
    pub fn stats(&self, cache: &CacheStats, reservation: &ReservationStats) {
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
        ];
        for (resource, count) in objects {
            set(&self.objects[resource as usize], count);
        }
        set(&self.holds, reservation.holds);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_are_those_of_holds() {
        assert_eq!(END_LABEL.1, EndReason::ALL.map(EndReason::as_str));
    }
}
