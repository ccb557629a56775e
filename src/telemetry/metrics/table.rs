//! The table of metrics. Its rows about the cache are in `cluster`.

use super::labels::*;
use super::{MetricDefinition, MetricKind, bind, cluster, leader_election};
use crate::policy::Oversized;
use crate::reservation::filter_reason::FilterReason;
use crate::reservation::preemption::PreemptionReason;

/// Every metric, in the order of docs/metrics.md.
pub static TABLE: &[MetricDefinition] = &[
    ADMISSION_REQUESTS,
    ADMISSION_DURATION,
    ADMISSION_OVERSIZED,
    EXTENDER_REQUESTS,
    EXTENDER_DURATION,
    EXTENDER_UNJUDGED,
    EXTENDER_REFUSED_NODES,
    EXTENDER_DROPPED_NODES,
    bind::BIND_REQUESTS,
    bind::BIND_UNJUDGED,
    bind::BIND_DURATION,
    bind::BOUND_UNJUDGED,
    bind::POD_WAIT,
    HTTP_ERRORS,
    HTTP_SHED,
    HTTP_IN_FLIGHT,
    CONNECTIONS,
    CONNECTIONS_CUT,
    ACCEPT_ERRORS,
    PANICS,
    CERTIFICATE_EXPIRATION,
    CERTIFICATE_NOT_BEFORE,
    CERTIFICATE_RELOADS,
    CERTIFICATE_RELOAD_FAILURES,
    TLS_SECRET_WRITES,
    TLS_SECRET_FAILURES,
    WEBHOOK_CONFIGURATION_PATCHES,
    WEBHOOK_CONFIGURATION_MISSING,
    cluster::CACHE_FRESH,
    cluster::LOCK_HELD,
    cluster::LOCK_CPU,
    cluster::SYNCED,
    cluster::OBJECTS,
    cluster::WATCH_LAST_EVENT,
    cluster::WATCH_ERRORS,
    cluster::RELISTS,
    cluster::UNREADABLE,
    cluster::HOLDS,
    cluster::HOLDS_REFUSING,
    cluster::HOLDS_ENDED,
    cluster::TOO_LARGE,
    cluster::TOO_SMALL,
    cluster::WITHOUT_BASIS,
    cluster::GATES_CLOSED,
    cluster::GATES_EXPIRED,
    cluster::ASSUMED_PODS,
    cluster::WAITING,
    cluster::NOMINATED,
    cluster::NOMINATIONS_WAITING,
    cluster::NOMINATION_PERMITTED,
    cluster::FAIL_OPEN,
    cluster::AUDITED,
    cluster::CLUSTER_WRITES,
    leader_election::JUDGING,
    leader_election::TRANSITIONS,
    leader_election::ERRORS,
    LOG_LINES_DROPPED,
    LOG_LINES_LEFT_OUT,
    TRACE_SPANS,
    READY,
    BUILD_INFO,
];

pub(super) const ADMISSION_REQUESTS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_admission_requests_total",
    kind: MetricKind::Counter,
    labels: &[Webhook::LABEL, Operation::LABEL, AdmissionOutcome::LABEL],
    help: "Admission reviews answered. `bad` are 4xx: an apiserver sends none, so another client does.",
};
pub(super) const ADMISSION_DURATION: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_admission_duration_seconds",
    kind: MetricKind::Histogram,
    labels: &[Webhook::LABEL],
    help: "The time from the whole body to the answer.",
};
pub(super) const ADMISSION_OVERSIZED: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_admission_oversized_total",
    kind: MetricKind::Counter,
    labels: &[Webhook::LABEL, Oversized::LABEL],
    help: "Reviews of objects that are too large to be reviewed, or to be checked against the cluster in time: `admission.oversized` says if such a DaemonSet is denied; a pod is allowed as it is. Anything but 0 is a very strange object, or an attack.",
};
pub(super) const EXTENDER_REQUESTS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_extender_requests_total",
    kind: MetricKind::Counter,
    labels: &[ExtenderVerb::LABEL, ExtenderOutcome::LABEL],
    help: "Calls by the scheduler answered.",
};
pub(super) const EXTENDER_DURATION: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_extender_duration_seconds",
    kind: MetricKind::Histogram,
    labels: &[ExtenderVerb::LABEL],
    help: "The time from the whole body to the answer. The scheduler waits for it with every pod.",
};
pub(super) const EXTENDER_UNJUDGED: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_extender_unjudged_total",
    kind: MetricKind::Counter,
    labels: &[ExtenderVerb::LABEL],
    help: "Calls that name more nodes or victims than the cluster has, and are answered as if no room were reserved. No scheduler sends one.",
};
pub(super) const EXTENDER_REFUSED_NODES: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_extender_refused_nodes_total",
    kind: MetricKind::Counter,
    labels: &[FilterReason::LABEL],
    help: "Nodes that the filter refused.",
};
pub(super) const EXTENDER_DROPPED_NODES: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_extender_dropped_nodes_total",
    kind: MetricKind::Counter,
    labels: &[PreemptionReason::LABEL],
    help: "Candidate nodes that the preemption verb dropped, so that a pod evicts no others there.",
};
pub(super) const HTTP_ERRORS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_http_errors_total",
    kind: MetricKind::Counter,
    labels: &[CODE_LABEL],
    help: "Answers with a status of 400 or above, on either port.",
};
pub(super) const HTTP_SHED: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_http_requests_shed_total",
    kind: MetricKind::Counter,
    labels: &[ShedReason::LABEL],
    help: "Requests answered 503, or new connections closed, because of a limit. Anything but 0 is an overload or an attack. Connections that wait for a request and give way to newer ones do not count: see `daemonset_warden_connections_cut_total`.",
};
pub(super) const HTTP_IN_FLIGHT: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_http_requests_in_flight",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "Requests in work on the secure port.",
};
pub(super) const CONNECTIONS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_connections",
    kind: MetricKind::Gauge,
    labels: &[Port::LABEL],
    help: "Open connections.",
};
pub(super) const CONNECTIONS_CUT: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_connections_cut_total",
    kind: MetricKind::Counter,
    labels: &[CloseReason::LABEL],
    help: "Connections that the server ended. `handshake_failed` grows when clients do not trust the certificate, `gave_way` when \
           newer connections need the place of those that wait, `client_certificate` when that of a client has expired or its CA is \
           in use no longer.",
};
pub(super) const ACCEPT_ERRORS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_accept_errors_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Connections that could not be accepted, mostly for want of file descriptors.",
};
pub(super) const PANICS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_panics_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Requests that met a bug and were answered 500. Please report the log line.",
};
pub(super) const CERTIFICATE_EXPIRATION: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_certificate_expiration_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: &[CertificateKind::LABEL],
    help: "The end of the certificate in use, in Unix time.",
};
pub(super) const CERTIFICATE_NOT_BEFORE: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_certificate_not_before_timestamp_seconds",
    kind: MetricKind::Gauge,
    labels: &[CertificateKind::LABEL],
    help: "The beginning of the certificate in use, in Unix time. Later than now where a clock is or was wrong.",
};
pub(super) const CERTIFICATE_RELOADS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_certificate_reloads_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Times that a new certificate, key or client CA was taken into use.",
};
pub(super) const CERTIFICATE_RELOAD_FAILURES: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_certificate_reload_failures_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Failed reads of the certificate files or the client CA; the last good ones stay in use, if there were any. Grows for as long as they are bad.",
};
pub(super) const TLS_SECRET_WRITES: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_tls_secret_writes_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Times that this replica wrote the Secret of --tls-secret: made, renewed, rolled over or repaired it.",
};
pub(super) const TLS_SECRET_FAILURES: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_tls_secret_failures_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Failed reads and writes of the Secret of --tls-secret and of the webhook configurations; the certificate that is served stays.",
};
pub(super) const WEBHOOK_CONFIGURATION_PATCHES: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_webhook_configuration_patches_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Times that the CA in a webhook configuration was missing or wrong, and written.",
};
pub(super) const WEBHOOK_CONFIGURATION_MISSING: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_webhook_configuration_missing",
    kind: MetricKind::Gauge,
    labels: &[RegisteredWebhook::LABEL],
    help: "1 if the webhook configuration whose CA bundle this replica writes does not exist.",
};
pub(super) const LOG_LINES_DROPPED: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_log_lines_dropped_total",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Log lines lost because the reader of stderr is too slow; requests do not wait for the log.",
};
pub(super) const LOG_LINES_LEFT_OUT: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_log_lines_left_out_total",
    kind: MetricKind::Counter,
    labels: &[LogSource::LABEL],
    help: "Log lines left out because too many were of one kind: 200 at once, and 20 a second after that. The log has a line every 10 s with their number.",
};
pub(super) const TRACE_SPANS: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_trace_spans_total",
    kind: MetricKind::Counter,
    labels: &[SpanOutcome::LABEL],
    help: "Spans of sampled requests, with --tracing-endpoint. Requests do not wait for them: spans that the collector does not take in time are lost.",
};
pub(super) const READY: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_ready",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "1 if /readyz answers 200.",
};
pub(super) const BUILD_INFO: MetricDefinition = MetricDefinition {
    name: "daemonset_warden_build_info",
    kind: MetricKind::Gauge,
    labels: &[("version", &[env!("CARGO_PKG_VERSION")])],
    help: "Always 1.",
};
