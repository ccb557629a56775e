//! Every metric, its name, labels and meaning, in one table; docs/metrics.md is made from it.
//!
//! Labels come from closed sets only: each is an enum here, never a name, a namespace or a message. All series exist from
//! the start, with 0, so that an alert on an increase sees the first one; and none is looked up while a request waits.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::certificates::plan::Validity;
use crate::daemonset::filter::Refusal;
use crate::daemonset::preemption::Dropped;

/// What kind of metric it is, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One row of the table.
#[derive(Debug)]
pub struct Definition {
    /// The whole name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Each label with all of its values.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    /// What it counts, and what it is good for.
    pub help: &'static str,
}

/// Makes an enum whose variants are a label's values.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $label:literal, { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(super) const LABEL: (&'static str, &'static [&'static str]) = ($label, &[$($value),+]);

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                Self::LABEL.1[self as usize]
            }
        }
    };
}

pub mod cluster;

label!(
    /// Which webhook.
    Webhook, "webhook", {
        /// `/validate`
        Validate = "validate",
        /// `/mutate`
        Mutate = "mutate",
    }
);

label!(
    /// What the user does.
    Operation, "operation", {
        /// A new object.
        Create = "create",
        /// A changed one.
        Update = "update",
        /// One that goes.
        Delete = "delete",
        /// A subresource that is connected to.
        Connect = "connect",
        /// None of these, or the request was no review.
        Other = "other",
    }
);

impl Operation {
    /// From an AdmissionReview's `operation`.
    pub fn from_review(operation: &str) -> Self {
        match operation {
            "CREATE" => Self::Create,
            "UPDATE" => Self::Update,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

label!(
    /// What a webhook answered.
    Outcome, "outcome", {
        /// Allowed as it is.
        Allowed = "allowed",
        /// Allowed with warnings.
        Warned = "warned",
        /// Allowed with a patch.
        Patched = "patched",
        /// Refused.
        Denied = "denied",
        /// No review that could be answered: a 4xx.
        Bad = "bad",
    }
);

label!(
    /// What the scheduler asks.
    Verb, "verb", {
        /// `/scheduler/filter`
        Filter = "filter",
        /// `/scheduler/preempt`
        Preempt = "preempt",
    }
);

label!(
    /// What the extender answered.
    Filtered, "outcome", {
        /// Nothing was refused.
        Passed = "passed",
        /// Some nodes were refused.
        Refused = "refused",
        /// No arguments that could be answered: a 400.
        Bad = "bad",
    }
);

/// Why a node was refused, by `daemonset::filter::Refusal::index`.
const REFUSALS: (&str, &[&str]) =
    ("reason", &["not_target", "node_selector", "taint", "kept_room", "not_ready", "stale"]);

/// Why a node was dropped from a preemption, by `daemonset::preemption::Dropped::index`.
const DROPS: (&str, &[&str]) = ("reason", &["predecessor_leaves", "kept_room", "daemon_pod_victim"]);

label!(
    /// Why a request or a connection was shed.
    Shed, "reason", {
        /// Too many requests in work.
        Requests = "requests",
        /// Too many connections.
        Connections = "connections",
        /// Too many bytes of bodies.
        Memory = "memory",
        /// Too many TLS handshakes.
        Handshakes = "handshakes",
    }
);

label!(
    /// Why a connection was cut off by us.
    Cut, "reason", {
        /// The TLS handshake took too long.
        HandshakeTime = "handshake_time",
        /// The TLS handshake failed.
        HandshakeFailed = "handshake_failed",
        /// A request's head took too long.
        HeaderTime = "header_time",
        /// The client stopped reading an answer.
        WriteTime = "write_time",
        /// No request for a long time; harmless.
        Idle = "idle",
    }
);

label!(
    /// Which port.
    Port, "port", {
        /// HTTPS.
        Secure = "secure",
        /// Metrics and health.
        Metrics = "metrics",
    }
);

label!(
    /// Which certificate.
    Certificate, "certificate", {
        /// The one that is shown to clients.
        Serving = "serving",
        /// The development CA; 0 if there is none.
        DevelopmentCa = "development_ca",
        /// The CA that replicas share in a Secret; 0 if there is none.
        Ca = "ca",
    }
);

label!(
    /// What became of a span.
    SpanFate, "outcome", {
        /// The collector has it.
        Exported = "exported",
        /// The collector was not there, or refused it.
        Failed = "failed",
        /// Too many waited before it.
        Dropped = "dropped",
    }
);

use self::cluster::ClusterMetrics;
pub use self::cluster::Resource;

/// The status codes of answers that are errors.
const CODES: [u16; 11] = [400, 401, 403, 404, 405, 408, 413, 415, 500, 503, 504];
const CODE_LABEL: (&str, &[&str]) =
    ("code", &["400", "401", "403", "404", "405", "408", "413", "415", "500", "503", "504", "other"]);

/// 25 µs to 5 s: an answer takes tens of microseconds, the apiserver and the scheduler wait for 10 s at most.
const DURATION_BUCKETS: [f64; 17] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0,
];

/// The table.
pub static TABLE: &[Definition] = &[
    ADMISSION_REQUESTS,
    ADMISSION_DURATION,
    EXTENDER_REQUESTS,
    EXTENDER_DURATION,
    EXTENDER_REFUSED_NODES,
    EXTENDER_DROPPED_NODES,
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
    cluster::BELIEVED,
    cluster::SYNCED,
    cluster::OBJECTS,
    cluster::HEARD,
    cluster::WATCH_ERRORS,
    cluster::RELISTS,
    cluster::UNREADABLE,
    cluster::HOLDS,
    cluster::HOLDS_REFUSING,
    cluster::HOLDS_ENDED,
    cluster::GATES_CLOSED,
    cluster::GATES_EXPIRED,
    cluster::LEDGER,
    cluster::WAITING,
    cluster::FAIL_OPEN,
    cluster::AUDITED,
    cluster::EFFECTS,
    LOG_LINES_DROPPED,
    TRACE_SPANS,
    READY,
    BUILD_INFO,
];

const ADMISSION_REQUESTS: Definition = Definition {
    name: "daemonset_warden_admission_requests_total",
    kind: Kind::Counter,
    labels: &[Webhook::LABEL, Operation::LABEL, Outcome::LABEL],
    help: "Admission reviews answered. `bad` are 4xx: the apiserver sends none, so somebody else does.",
};
const ADMISSION_DURATION: Definition = Definition {
    name: "daemonset_warden_admission_duration_seconds",
    kind: Kind::Histogram,
    labels: &[Webhook::LABEL],
    help: "From the whole body to the answer.",
};
const EXTENDER_REQUESTS: Definition = Definition {
    name: "daemonset_warden_extender_requests_total",
    kind: Kind::Counter,
    labels: &[Verb::LABEL, Filtered::LABEL],
    help: "Calls by the scheduler answered.",
};
const EXTENDER_DURATION: Definition = Definition {
    name: "daemonset_warden_extender_duration_seconds",
    kind: Kind::Histogram,
    labels: &[Verb::LABEL],
    help: "From the whole body to the answer. The scheduler waits for it with every pod.",
};
const EXTENDER_REFUSED_NODES: Definition = Definition {
    name: "daemonset_warden_extender_refused_nodes_total",
    kind: Kind::Counter,
    labels: &[REFUSALS],
    help: "Nodes that a pod was kept from.",
};
const EXTENDER_DROPPED_NODES: Definition = Definition {
    name: "daemonset_warden_extender_dropped_nodes_total",
    kind: Kind::Counter,
    labels: &[DROPS],
    help: "Nodes where a pod was kept from evicting others.",
};
const HTTP_ERRORS: Definition = Definition {
    name: "daemonset_warden_http_errors_total",
    kind: Kind::Counter,
    labels: &[CODE_LABEL],
    help: "Answers with a status of 400 or above, on either port.",
};
const HTTP_SHED: Definition = Definition {
    name: "daemonset_warden_http_requests_shed_total",
    kind: Kind::Counter,
    labels: &[Shed::LABEL],
    help: "Requests answered 503, or connections closed, because of a limit. Anything but 0 is an overload or an attack.",
};
const HTTP_IN_FLIGHT: Definition = Definition {
    name: "daemonset_warden_http_requests_in_flight",
    kind: Kind::Gauge,
    labels: &[],
    help: "Requests in work on the secure port.",
};
const CONNECTIONS: Definition = Definition {
    name: "daemonset_warden_connections",
    kind: Kind::Gauge,
    labels: &[Port::LABEL],
    help: "Open connections.",
};
const CONNECTIONS_CUT: Definition = Definition {
    name: "daemonset_warden_connections_cut_total",
    kind: Kind::Counter,
    labels: &[Cut::LABEL],
    help: "Connections that the server ended. `handshake_failed` grows when clients do not trust the certificate.",
};
const ACCEPT_ERRORS: Definition = Definition {
    name: "daemonset_warden_accept_errors_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Connections that could not be accepted, mostly for want of file descriptors.",
};
const PANICS: Definition = Definition {
    name: "daemonset_warden_panics_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Requests that met a bug and were answered 500. Please report the log line.",
};
const CERTIFICATE_EXPIRATION: Definition = Definition {
    name: "daemonset_warden_certificate_expiration_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[Certificate::LABEL],
    help: "When the certificate in use expires, in Unix time.",
};
const CERTIFICATE_NOT_BEFORE: Definition = Definition {
    name: "daemonset_warden_certificate_not_before_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[Certificate::LABEL],
    help: "From when the certificate in use is valid, in Unix time. Later than now where a clock is or was wrong.",
};
const CERTIFICATE_RELOADS: Definition = Definition {
    name: "daemonset_warden_certificate_reloads_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Times that a new certificate, key or client CA was taken into use.",
};
const CERTIFICATE_RELOAD_FAILURES: Definition = Definition {
    name: "daemonset_warden_certificate_reload_failures_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Looks at the certificate files or the client CA that failed; what was good before stays in use, if there was something. Grows for as long as they are bad.",
};
const TLS_SECRET_WRITES: Definition = Definition {
    name: "daemonset_warden_tls_secret_writes_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Times that this replica wrote the Secret of --tls-secret: made, renewed, rolled over or repaired it.",
};
const TLS_SECRET_FAILURES: Definition = Definition {
    name: "daemonset_warden_tls_secret_failures_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Looks at the Secret of --tls-secret or at the webhook configurations that failed; what is served stays.",
};
const WEBHOOK_CONFIGURATION_PATCHES: Definition = Definition {
    name: "daemonset_warden_webhook_configuration_patches_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Times that the CA in a webhook configuration was missing or wrong, and written.",
};
const WEBHOOK_CONFIGURATION_MISSING: Definition = Definition {
    name: "daemonset_warden_webhook_configuration_missing",
    kind: Kind::Gauge,
    labels: &[Webhook::LABEL],
    help: "1 if the webhook configuration that we should keep is gone.",
};
const LOG_LINES_DROPPED: Definition = Definition {
    name: "daemonset_warden_log_lines_dropped_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Log lines lost because whoever reads them is too slow; requests do not wait for the log.",
};
const TRACE_SPANS: Definition = Definition {
    name: "daemonset_warden_trace_spans_total",
    kind: Kind::Counter,
    labels: &[SpanFate::LABEL],
    help: "Spans of sampled requests, with --tracing-endpoint. Requests do not wait for them: what the collector does not take in time is lost.",
};
const READY: Definition = Definition {
    name: "daemonset_warden_ready",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 if /readyz answers 200.",
};
const BUILD_INFO: Definition = Definition {
    name: "daemonset_warden_build_info",
    kind: Kind::Gauge,
    labels: &[("version", &[env!("CARGO_PKG_VERSION")])],
    help: "Always 1.",
};

/// Handles to every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    admission_requests: Vec<IntCounter>,
    admission_duration: Vec<Histogram>,
    extender_requests: Vec<IntCounter>,
    extender_duration: Vec<Histogram>,
    extender_refused_nodes: Vec<IntCounter>,
    extender_dropped_nodes: Vec<IntCounter>,
    http_errors: Vec<IntCounter>,
    http_shed: Vec<IntCounter>,
    connections: Vec<IntGauge>,
    connections_cut: Vec<IntCounter>,
    certificate_expiration: Vec<Gauge>,
    certificate_not_before: Vec<Gauge>,
    webhook_configuration_missing: Vec<IntGauge>,
    trace_spans: Vec<IntCounter>,
    /// See [`TABLE`].
    pub tls_secret_writes: IntCounter,
    /// See [`TABLE`].
    pub tls_secret_failures: IntCounter,
    /// See [`TABLE`].
    pub webhook_configuration_patches: IntCounter,
    /// What the watches and the effects count.
    pub cluster: ClusterMetrics,
    /// See [`TABLE`], as for the others.
    pub http_in_flight: IntGauge,
    /// See [`TABLE`].
    pub accept_errors: IntCounter,
    /// See [`TABLE`].
    pub panics: IntCounter,
    /// See [`TABLE`].
    pub certificate_reloads: IntCounter,
    /// See [`TABLE`].
    pub certificate_reload_failures: IntCounter,
    /// See [`TABLE`].
    pub log_lines_dropped: IntCounter,
    /// See [`TABLE`].
    pub ready: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let new = &registry;
        let build_info = int_gauges(new, &BUILD_INFO);
        for series in &build_info {
            series.set(1);
        }
        Self {
            admission_requests: counters(new, &ADMISSION_REQUESTS),
            admission_duration: histograms(new, &ADMISSION_DURATION),
            extender_requests: counters(new, &EXTENDER_REQUESTS),
            extender_duration: histograms(new, &EXTENDER_DURATION),
            extender_refused_nodes: counters(new, &EXTENDER_REFUSED_NODES),
            extender_dropped_nodes: counters(new, &EXTENDER_DROPPED_NODES),
            http_errors: counters(new, &HTTP_ERRORS),
            http_shed: counters(new, &HTTP_SHED),
            connections: int_gauges(new, &CONNECTIONS),
            connections_cut: counters(new, &CONNECTIONS_CUT),
            certificate_expiration: gauges(new, &CERTIFICATE_EXPIRATION),
            certificate_not_before: gauges(new, &CERTIFICATE_NOT_BEFORE),
            webhook_configuration_missing: int_gauges(new, &WEBHOOK_CONFIGURATION_MISSING),
            trace_spans: counters(new, &TRACE_SPANS),
            tls_secret_writes: counters(new, &TLS_SECRET_WRITES).remove(0),
            tls_secret_failures: counters(new, &TLS_SECRET_FAILURES).remove(0),
            webhook_configuration_patches: counters(new, &WEBHOOK_CONFIGURATION_PATCHES).remove(0),
            cluster: ClusterMetrics::new(new),
            http_in_flight: int_gauges(new, &HTTP_IN_FLIGHT).remove(0),
            accept_errors: counters(new, &ACCEPT_ERRORS).remove(0),
            panics: counters(new, &PANICS).remove(0),
            certificate_reloads: counters(new, &CERTIFICATE_RELOADS).remove(0),
            certificate_reload_failures: counters(new, &CERTIFICATE_RELOAD_FAILURES).remove(0),
            log_lines_dropped: counters(new, &LOG_LINES_DROPPED).remove(0),
            ready: int_gauges(new, &READY).remove(0),
            registry,
        }
    }
}

impl Metrics {
    /// Counts a review's answer and its time.
    pub fn admission(&self, webhook: Webhook, operation: Operation, outcome: Outcome, took: Duration) {
        let series = (webhook as usize * Operation::LABEL.1.len() + operation as usize)
            * Outcome::LABEL.1.len()
            + outcome as usize;
        self.admission_requests[series].inc();
        self.admission_duration[webhook as usize].observe(took.as_secs_f64());
    }

    /// Counts a call by the scheduler and its time.
    pub fn extender(&self, verb: Verb, outcome: Filtered, took: Duration) {
        self.extender_requests[verb as usize * Filtered::LABEL.1.len() + outcome as usize].inc();
        self.extender_duration[verb as usize].observe(took.as_secs_f64());
    }

    /// Counts nodes that a pod was kept from, by `Refusal::index`.
    pub fn refused_nodes(&self, counts: &[usize; Refusal::ALL.len()]) {
        add(&self.extender_refused_nodes, counts);
    }

    /// Counts nodes where a pod was kept from evicting others, by `Dropped::index`.
    pub fn dropped_nodes(&self, counts: &[usize; Dropped::ALL.len()]) {
        add(&self.extender_dropped_nodes, counts);
    }

    /// Counts an answer of 400 or above.
    pub fn http_error(&self, code: u16) {
        let series = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len());
        self.http_errors[series].inc();
    }

    /// Counts what a limit refused.
    pub fn shed(&self, reason: Shed) {
        self.http_shed[reason as usize].inc();
    }

    /// Counts a connection that we ended.
    pub fn cut(&self, reason: Cut) {
        self.connections_cut[reason as usize].inc();
    }

    /// Counts spans.
    pub fn spans(&self, fate: SpanFate, spans: usize) {
        self.trace_spans[fate as usize].inc_by(spans as u64);
    }

    /// The number of open connections of a port.
    pub fn connections(&self, port: Port) -> &IntGauge {
        &self.connections[port as usize]
    }

    /// Whether a webhook configuration that should be there is gone.
    pub fn webhook_configuration_missing(&self, webhook: Webhook, missing: bool) {
        self.webhook_configuration_missing[webhook as usize].set(i64::from(missing));
    }

    /// From when to when a certificate is good.
    pub fn certificate_valid(&self, certificate: Certificate, validity: Validity) {
        self.certificate_expiration[certificate as usize].set(validity.not_after as f64);
        self.certificate_not_before[certificate as usize].set(validity.not_before as f64);
    }

    /// Everything, in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "failed to encode metrics");
        }
        text
    }
}

/// The table as a page of the documentation.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n`GET /metrics` on the metrics port. Labels have no values but these, and every series exists from the \
         start. This page is made from the table in `src/metrics.rs`:\n`UPDATE_GOLDEN=1 cargo test --test offline \
         metrics` writes it.\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in TABLE {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|(label, values)| match *label {
                "version" => "`version`".to_owned(),
                label => format!("`{label}`: {}", values.join(", ")),
            })
            .collect();
        page.push_str(&format!(
            "| `{}` | {kind} | {} | {} |\n",
            metric.name,
            labels.join("<br>"),
            metric.help
        ));
    }
    page
}

/// One series for each combination of the labels' values, the last label turning fastest.
fn series<T>(definition: &Definition, mut make: impl FnMut(&[&str]) -> T) -> Vec<T> {
    let mut combinations: Vec<Vec<&str>> = vec![Vec::new()];
    for (_, values) in definition.labels {
        combinations = combinations
            .iter()
            .flat_map(|before| values.iter().map(|value| [before.as_slice(), &[*value]].concat()))
            .collect();
    }
    combinations.iter().map(|values| make(values)).collect()
}

fn names(definition: &Definition) -> Vec<&'static str> {
    definition.labels.iter().map(|(label, _)| *label).collect()
}

fn options(definition: &Definition) -> Opts {
    Opts::new(definition.name, definition.help)
}

// Registering fails for a bad name, a name twice, or labels that do not fit: all are constants of the table, and the
// test below makes every one of them.
#[expect(clippy::expect_used, reason = "the table is constant and tested")]
fn register<T: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<T>) -> T {
    let metric = metric.expect("the table's names and labels are well formed");
    registry.register(Box::new(metric.clone())).expect("the table's names are unique");
    metric
}

fn counters(registry: &Registry, definition: &Definition) -> Vec<IntCounter> {
    let metric = register(registry, IntCounterVec::new(options(definition), &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

fn int_gauges(registry: &Registry, definition: &Definition) -> Vec<IntGauge> {
    let metric = register(registry, IntGaugeVec::new(options(definition), &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

fn gauges(registry: &Registry, definition: &Definition) -> Vec<Gauge> {
    let metric = register(registry, GaugeVec::new(options(definition), &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

fn histograms(registry: &Registry, definition: &Definition) -> Vec<Histogram> {
    let options = HistogramOpts::from(options(definition)).buckets(DURATION_BUCKETS.to_vec());
    let metric = register(registry, HistogramVec::new(options, &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

/// Counts by index.
fn add(series: &[IntCounter], counts: &[usize]) {
    for (series, count) in series.iter().zip(counts) {
        // Most are 0, and an atomic write is not free.
        if *count > 0 {
            series.inc_by(*count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_in_the_order_of_their_index() {
        assert_eq!(REFUSALS.1, Refusal::ALL.map(Refusal::label));
        assert_eq!(DROPS.1, Dropped::ALL.map(Dropped::label));
    }

    #[test]
    fn every_metric_is_there_from_the_start() {
        let metrics = Metrics::default();
        metrics.admission(Webhook::Mutate, Operation::Update, Outcome::Patched, Duration::from_micros(30));
        metrics.http_error(418);
        let text = String::from_utf8(metrics.text()).unwrap();
        for definition in TABLE {
            assert!(text.contains(&format!("# HELP {} ", definition.name)), "{}", definition.name);
        }
        assert!(text.contains(r#"requests_total{operation="update",outcome="patched",webhook="mutate"} 1"#));
        assert!(text.contains(r#"http_errors_total{code="other"} 1"#), "{text}");
        assert!(text.contains(r#"http_errors_total{code="413"} 0"#), "{text}");
    }
}
