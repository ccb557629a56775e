//! The rows of the table about leader election.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{MetricDefinition, MetricKind, series};

pub(super) const JUDGING: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_leader_election_judging",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "1 if this replica judges bindings: it holds the Lease, has renewed it in time, and has seen all earlier bindings. Always 0 without --leader-elect. The sum over all replicas is 1, and 0 for some seconds while another replica takes over. 0 for longer: no binding is judged.",
};
pub(super) const TRANSITIONS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_leader_election_transitions_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Times that this replica began to judge bindings or ceased to. A few for each rollout; without one, replicas fail or lose the apiserver.",
};
pub(super) const ERRORS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_leader_election_errors_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Failed reads and writes of the Lease, and failed writes of the label and the annotation by which a Pod shows that it judges. The log names the missing right.",
};

/// Handles to the metrics of leader election.
#[derive(Debug)]
pub struct LeaderElectionMetrics {
    judging: IntGauge,
    transitions: IntCounter,
    errors: IntCounter,
}

impl LeaderElectionMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            judging: series::int_gauge(registry, &JUDGING),
            transitions: series::counter(registry, &TRANSITIONS),
            errors: series::counter(registry, &ERRORS),
        }
    }

    /// Counts a transition: this replica judges from now on, or does so no longer.
    pub fn record_transition(&self, is_judging: bool) {
        self.judging.set(i64::from(is_judging));
        self.transitions.inc();
    }

    /// Counts a failed call to the apiserver.
    pub fn record_error(&self) {
        self.errors.inc();
    }
}
