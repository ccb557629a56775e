//! The rows of the table about bindings: the reviews of `/bind`, and the pods that waited for room.

use std::time::Duration;

use enum_map::{Enum, EnumMap};
use prometheus::{Histogram, IntCounter, Registry};
use strum::{IntoStaticStr, VariantNames};

use super::labels::{Label, label};
use super::{MetricDefinition, MetricKind, series};
use crate::reservation::door::Door;
use crate::reservation::filter_reason::FilterReason;
use crate::reservation::pod_wait::PodWait;

label! {
    BindOutcome = "outcome",
    UnjudgedReason = "reason",
}

impl Label for Door {
    const NAME: &'static str = "door";
}

/// The answer to the review of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum BindOutcome {
    /// Allowed: the pod leaves the reserved room.
    Allowed,
    /// Allowed, for no hold counts against the pod.
    Exempt,
    /// Allowed only because the mode is Audit.
    Audited,
    /// Refused: 403.
    Refused,
    /// Denied, for another replica judges: 503.
    Denied,
    /// Allowed without a look at the room.
    Unjudged,
    /// A request that is no review: a 4xx.
    Bad,
}

/// The reason for which a binding was allowed without a look at the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum UnjudgedReason {
    /// The server runs without a cluster.
    Standalone,
    /// The review is about something else than the binding of a pod to a node, or one that the apiserver refuses itself.
    NotABinding,
    /// The review is larger than any binding.
    TooLarge,
    /// The cache is not fresh.
    NotFresh,
    /// No replica has judged for a lease duration.
    NoJudge,
    /// Another replica judges, and the mode is not Enforce, so that nothing is denied.
    Standby,
    /// The cache lacks the pod or the node, and no room is reserved there or the time to wait is up.
    Unknown,
}

pub(super) const BIND_REQUESTS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_bind_requests_total",
    kind: MetricKind::Counter,
    labels: &[BindOutcome::LABEL],
    help: "Reviews of bindings answered. `audited` would be `refused` with mode Enforce. `denied` grows while replicas hand over, and the scheduler tries those pods again. `bad` are 4xx: an apiserver sends none.",
};
pub(super) const BIND_UNJUDGED: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_bind_unjudged_total",
    kind: MetricKind::Counter,
    labels: &[UnjudgedReason::LABEL],
    help: "Bindings that were allowed without a look at the room. `no_judge` and `not_fresh` cost daemon pods their room. The apiserver counts those that did not reach a replica: `apiserver_admission_webhook_fail_open_count`.",
};
pub(super) const BIND_DURATION: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_bind_request_duration_seconds",
    kind: MetricKind::Histogram,
    labels: &[],
    help: "The time from the whole body to the answer. The scheduler goes on meanwhile.",
};
pub(super) const BOUND_UNJUDGED: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_bound_unjudged_pods_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Pods that were seen bound and that neither door had allowed, while this replica was the elected judge. Pods that no hold counts against are left out. Grows by every pod if the webhook configuration of `/bind` is missing and no extender is called.",
};
pub(super) const POD_WAIT: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_pod_wait_seconds",
    kind: MetricKind::Histogram,
    labels: &[Door::LABEL, FilterReason::LABEL],
    help: "The time from the first refusal of a pod, at `/bind` or on every node of a filter call, until it was bound to some node. This is what reserved room costs other pods.",
};

/// Handles to the metrics about bindings.
#[derive(Debug)]
pub struct BindMetrics {
    requests: EnumMap<BindOutcome, IntCounter>,
    unjudged: EnumMap<UnjudgedReason, IntCounter>,
    duration: Histogram,
    bound_unjudged: IntCounter,
    pod_wait: EnumMap<Door, EnumMap<FilterReason, Histogram>>,
}

impl BindMetrics {
    pub(super) fn new(new: &Registry) -> Self {
        let waits = series::wait_histogram_vec(new, &POD_WAIT);
        Self {
            requests: series::counters(new, &BIND_REQUESTS),
            unjudged: series::counters(new, &BIND_UNJUDGED),
            duration: series::histogram(new, &BIND_DURATION),
            bound_unjudged: series::counter(new, &BOUND_UNJUDGED),
            pod_wait: EnumMap::from_fn(|door: Door| {
                EnumMap::from_fn(|reason: FilterReason| {
                    let values: [&str; 2] = [door.into(), reason.into()];
                    waits.with_label_values(&values)
                })
            }),
        }
    }

    /// Counts an answered review, and observes the time from the whole body to the answer.
    pub fn record(&self, outcome: BindOutcome, took: Duration) {
        self.requests[outcome].inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a binding that was allowed without a look at the room; [`Self::record`] counts the answer.
    pub fn record_unjudged(&self, reason: UnjudgedReason) {
        self.unjudged[reason].inc();
    }

    /// Counts pods that were bound without a judgement, and observes the waits of refused pods that were bound.
    pub fn record_bound(&self, unjudged: u64, waits: &[PodWait]) {
        if unjudged > 0 {
            self.bound_unjudged.inc_by(unjudged);
        }
        for PodWait { door, reason, time } in waits {
            self.pod_wait[*door][*reason].observe(time.as_secs_f64());
        }
    }
}
