//! Every metric, its name, labels and meaning, in one table; docs/metrics.md is made from it.
//!
//! Labels come from closed sets only: each is an enum, never a name, a namespace or a message. All series exist from the start,
//! with 0, so that an alert on an increase sees the first one. No series is looked up by its labels while a request waits.

pub mod bind;
pub mod cluster;
pub mod labels;
pub mod leader_election;
pub mod series;
pub mod table;

use std::time::Duration;

use enum_map::EnumMap;
use parking_lot::Mutex;
use prometheus::{Encoder, Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};
use tracing_appender::non_blocking::ErrorCounter;

use self::bind::BindMetrics;
use self::cluster::ClusterMetrics;
pub use self::cluster::WatchedResource;
pub use self::labels::{
    AdmissionOutcome, CertificateKind, CloseReason, ExtenderOutcome, ExtenderVerb, LogSource, Operation,
    Port, RegisteredWebhook, ShedReason, SpanOutcome, Webhook,
};
use self::labels::{CODE_LABEL, LabelValues};
use self::leader_election::LeaderElectionMetrics;
use self::series::{
    add, counter, counter_vec, counters, gauges, histograms, int_gauge, int_gauge_vec, int_gauges,
};
pub use self::table::TABLE;
use self::table::*;
use crate::policy::Oversized;
use crate::reservation::filter_reason::FilterReason;
use crate::reservation::preemption::PreemptionReason;

/// The kind of a metric, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only goes up.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A count of observations in buckets.
    Histogram,
}

/// The definition of one metric, a row of the table.
#[derive(Debug)]
pub struct MetricDefinition {
    /// The name, with the prefix `daemonset_warden_`.
    pub name: &'static str,
    /// The kind of all its series.
    pub kind: MetricKind,
    /// The labels, each with all of its values.
    pub labels: &'static [LabelValues],
    /// The meaning of the metric and its use.
    pub help: &'static str,
}

/// Handles to every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    admission_requests: EnumMap<Webhook, EnumMap<Operation, EnumMap<AdmissionOutcome, IntCounter>>>,
    admission_duration: EnumMap<Webhook, Histogram>,
    admission_oversized: EnumMap<Webhook, EnumMap<Oversized, IntCounter>>,
    extender_requests: EnumMap<ExtenderVerb, EnumMap<ExtenderOutcome, IntCounter>>,
    extender_duration: EnumMap<ExtenderVerb, Histogram>,
    extender_unjudged: EnumMap<ExtenderVerb, IntCounter>,
    extender_refused_nodes: EnumMap<FilterReason, IntCounter>,
    extender_dropped_nodes: EnumMap<PreemptionReason, IntCounter>,
    /// In the order of [`CODE_LABEL`].
    http_errors: Vec<IntCounter>,
    http_shed: EnumMap<ShedReason, IntCounter>,
    connections: EnumMap<Port, IntGauge>,
    connections_cut: EnumMap<CloseReason, IntCounter>,
    certificate_expiration: EnumMap<CertificateKind, Gauge>,
    certificate_not_before: EnumMap<CertificateKind, Gauge>,
    webhook_configuration_missing: EnumMap<RegisteredWebhook, IntGauge>,
    trace_spans: EnumMap<SpanOutcome, IntCounter>,
    /// Writes of the Secret of `--tls-secret` by this replica.
    pub tls_secret_writes: IntCounter,
    /// Failed reads and writes of the Secret of `--tls-secret` and of the webhook configurations.
    pub tls_secret_failures: IntCounter,
    /// Writes of a CA that was missing or wrong in a webhook configuration.
    pub webhook_configuration_patches: IntCounter,
    /// The metrics about bindings.
    pub bind: BindMetrics,
    /// The metrics about the cache, which the watches, the writes and the scheduler's calls count.
    pub cluster: ClusterMetrics,
    /// The metrics of leader election.
    pub leader_election: LeaderElectionMetrics,
    /// Requests in work on the secure port.
    pub http_in_flight: IntGauge,
    /// Connections that could not be accepted.
    pub accept_errors: IntCounter,
    /// Requests that met a panic and were answered 500.
    pub panics: IntCounter,
    /// New certificates, keys or client CAs that were taken into use.
    pub certificate_reloads: IntCounter,
    /// Failed reads of the certificate files or the client CA.
    pub certificate_reload_failures: IntCounter,
    log_lines_dropped: IntCounter,
    log_lines_left_out: EnumMap<LogSource, IntCounter>,
    /// The log's own counter of the dropped lines, which is read at each scrape.
    log_lines_dropped_by: Mutex<Option<ErrorCounter>>,
    /// 1 if `/readyz` answers 200, else 0.
    pub ready: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let new = &registry;
        int_gauge_vec(new, &BUILD_INFO).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let (admission, extender) =
            (counter_vec(new, &ADMISSION_REQUESTS), counter_vec(new, &EXTENDER_REQUESTS));
        let oversized = counter_vec(new, &ADMISSION_OVERSIZED);
        let http_errors = counter_vec(new, &HTTP_ERRORS);
        Self {
            admission_requests: EnumMap::from_fn(|webhook: Webhook| {
                EnumMap::from_fn(|operation: Operation| {
                    EnumMap::from_fn(|outcome: AdmissionOutcome| {
                        let values = [webhook.as_str(), operation.as_str(), outcome.as_str()];
                        admission.with_label_values(&values)
                    })
                })
            }),
            admission_duration: histograms(new, &ADMISSION_DURATION),
            admission_oversized: EnumMap::from_fn(|webhook: Webhook| {
                EnumMap::from_fn(|outcome: Oversized| {
                    oversized.with_label_values(&[webhook.as_str(), outcome.into()])
                })
            }),
            extender_requests: EnumMap::from_fn(|verb: ExtenderVerb| {
                EnumMap::from_fn(|outcome: ExtenderOutcome| {
                    extender.with_label_values(&[verb.as_str(), outcome.as_str()])
                })
            }),
            extender_duration: histograms(new, &EXTENDER_DURATION),
            extender_unjudged: counters(new, &EXTENDER_UNJUDGED),
            extender_refused_nodes: counters(new, &EXTENDER_REFUSED_NODES),
            extender_dropped_nodes: counters(new, &EXTENDER_DROPPED_NODES),
            http_errors: CODE_LABEL.1.iter().map(|code| http_errors.with_label_values(&[*code])).collect(),
            http_shed: counters(new, &HTTP_SHED),
            connections: int_gauges(new, &CONNECTIONS),
            connections_cut: counters(new, &CONNECTIONS_CUT),
            certificate_expiration: gauges(new, &CERTIFICATE_EXPIRATION),
            certificate_not_before: gauges(new, &CERTIFICATE_NOT_BEFORE),
            webhook_configuration_missing: int_gauges(new, &WEBHOOK_CONFIGURATION_MISSING),
            trace_spans: counters(new, &TRACE_SPANS),
            tls_secret_writes: counter(new, &TLS_SECRET_WRITES),
            tls_secret_failures: counter(new, &TLS_SECRET_FAILURES),
            webhook_configuration_patches: counter(new, &WEBHOOK_CONFIGURATION_PATCHES),
            bind: BindMetrics::new(new),
            cluster: ClusterMetrics::new(new),
            leader_election: LeaderElectionMetrics::new(new),
            http_in_flight: int_gauge(new, &HTTP_IN_FLIGHT),
            accept_errors: counter(new, &ACCEPT_ERRORS),
            panics: counter(new, &PANICS),
            certificate_reloads: counter(new, &CERTIFICATE_RELOADS),
            certificate_reload_failures: counter(new, &CERTIFICATE_RELOAD_FAILURES),
            log_lines_dropped: counter(new, &LOG_LINES_DROPPED),
            log_lines_left_out: counters(new, &LOG_LINES_LEFT_OUT),
            log_lines_dropped_by: Mutex::default(),
            ready: int_gauge(new, &READY),
            registry,
        }
    }
}

impl Metrics {
    /// Counts a review that was answered, and observes the time from the whole body to the answer.
    pub fn admission(
        &self,
        webhook: Webhook,
        operation: Operation,
        outcome: AdmissionOutcome,
        took: Duration,
    ) {
        self.admission_requests[webhook][operation][outcome].inc();
        self.admission_duration[webhook].observe(took.as_secs_f64());
    }

    /// Counts a review of an object that is too large.
    pub fn oversized(&self, webhook: Webhook, choice: Oversized) {
        self.admission_oversized[webhook][choice].inc();
    }

    /// Counts a call that names more objects than there are, and is answered without a look at them.
    pub fn unjudged_call(&self, verb: ExtenderVerb) {
        self.extender_unjudged[verb].inc();
    }

    /// Counts a call by the scheduler and its time.
    pub fn extender(&self, verb: ExtenderVerb, outcome: ExtenderOutcome, took: Duration) {
        self.extender_requests[verb][outcome].inc();
        self.extender_duration[verb].observe(took.as_secs_f64());
    }

    /// Counts nodes that the filter refused.
    pub fn refused_nodes(&self, counts: &EnumMap<FilterReason, usize>) {
        add(&self.extender_refused_nodes, counts);
    }

    /// Counts candidate nodes that the preemption verb dropped.
    pub fn dropped_nodes(&self, counts: &EnumMap<PreemptionReason, usize>) {
        add(&self.extender_dropped_nodes, counts);
    }

    /// Counts a response with the status `code`, which is 400 or above. A code without a series of its own counts as `other`.
    pub fn http_error(&self, code: u16) {
        let series = CODE_LABEL.1.iter().position(|known| known.parse() == Ok(code));
        self.http_errors[series.unwrap_or(CODE_LABEL.1.len() - 1)].inc();
    }

    /// Counts a request that was answered 503, or a connection that was closed, because of a limit.
    pub fn record_shed(&self, reason: ShedReason) {
        self.http_shed[reason].inc();
    }

    /// Counts a connection that the server closed.
    pub fn record_close(&self, reason: CloseReason) {
        self.connections_cut[reason].inc();
    }

    /// Adds a number of spans that have had this outcome.
    pub fn record_spans(&self, outcome: SpanOutcome, spans: usize) {
        self.trace_spans[outcome].inc_by(spans as u64);
    }

    /// Returns the gauge of the open connections of a port.
    pub fn connections(&self, port: Port) -> &IntGauge {
        &self.connections[port]
    }

    /// Records that a webhook configuration of which this replica writes the CA does not exist, or that it does.
    pub fn webhook_configuration_missing(&self, webhook: RegisteredWebhook, missing: bool) {
        self.webhook_configuration_missing[webhook].set(i64::from(missing));
    }

    /// Records the validity of a certificate, in seconds of Unix time.
    pub fn certificate_valid(&self, certificate: CertificateKind, not_before: i64, not_after: i64) {
        self.certificate_expiration[certificate].set(not_after as f64);
        self.certificate_not_before[certificate].set(not_before as f64);
    }

    /// Counts a log line that was left out because of its rate.
    pub fn record_left_out_line(&self, source: LogSource) {
        self.log_lines_left_out[source].inc();
    }

    /// Takes the number of dropped log lines from `counter` at each scrape from now on.
    pub fn count_dropped_log_lines(&self, counter: ErrorCounter) {
        *self.log_lines_dropped_by.lock() = Some(counter);
    }

    /// Returns every series in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        // The lock is held so that two scrapes at once do not both add the difference.
        if let Some(counter) = &*self.log_lines_dropped_by.lock() {
            let dropped = counter.dropped_lines() as u64;
            self.log_lines_dropped.inc_by(dropped.saturating_sub(self.log_lines_dropped.get()));
        }
        let mut text = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "failed to encode metrics");
        }
        text
    }
}

/// Returns the table of metrics as the page docs/metrics.md.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n`GET /metrics` on the metrics port. Labels have no values but these, and every series exists from the \
         start. This page is made from the table in `src/telemetry/metrics/`:\n`UPDATE_GOLDEN=1 cargo test --test offline \
         metrics` writes it.\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in TABLE {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_of_the_table_is_there_from_the_start_and_no_other() {
        let text = String::from_utf8(Metrics::default().text()).unwrap();
        for definition in TABLE {
            assert!(text.contains(&format!("# HELP {} ", definition.name)), "{}", definition.name);
            let suffix = if definition.kind == MetricKind::Histogram { "_count" } else { "" };
            let name = format!("{}{suffix}", definition.name);
            let series: Vec<_> = text
                .lines()
                .filter(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with([' ', '{'])))
                .collect();
            let expected: usize = definition.labels.iter().map(|(_, values)| values.len()).product();
            assert_eq!(series.len(), expected, "{name}");
            for (label, values) in definition.labels {
                for value in *values {
                    let pair = format!("{label}=\"{value}\"");
                    assert!(series.iter().any(|line| line.contains(&pair)), "{name} {pair}");
                }
            }
        }
    }

    #[test]
    fn requests_are_counted_by_their_labels() {
        let metrics = Metrics::default();
        let outcome = AdmissionOutcome::Patched;
        metrics.admission(Webhook::Mutate, Operation::Update, outcome, Duration::from_micros(30));
        metrics.http_error(418);
        let text = String::from_utf8(metrics.text()).unwrap();
        assert!(text.contains(r#"requests_total{operation="update",outcome="patched",webhook="mutate"} 1"#));
        assert!(text.contains(r#"http_errors_total{code="other"} 1"#), "{text}");
        assert!(text.contains(r#"http_errors_total{code="413"} 0"#), "{text}");
    }
}
