//! Every metric, its name, labels and meaning, in one table; docs/metrics.md is made from it.
//!
//! Labels come from closed sets only: each is an enum here, never a name, a namespace or a message. All series exist from
//! the start, with 0, so that an alert on an increase sees the first one; and none is looked up while a request waits.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{Encoder, Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};
use tracing_appender::non_blocking::ErrorCounter;

use crate::reservation::filter_reason::FilterReason;
use crate::reservation::preemption::PreemptionReason;

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
            pub(crate) const LABEL: (&'static str, &'static [&'static str]) = ($label, &[$($value),+]);

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                Self::LABEL.1[self as usize]
            }
        }
    };
}

pub mod cluster;
pub mod labels;
pub mod series;
pub mod table;

use self::cluster::ClusterMetrics;
pub use self::cluster::WatchedResource;
use self::labels::CODES;
pub use self::labels::*;
use self::series::{add, counters, gauges, histograms, int_gauges};
pub use self::table::TABLE;
use self::table::*;

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
    log_lines_dropped: IntCounter,
    /// The log's own counter of the same, which is read at each scrape.
    log_lines_dropped_by: Mutex<Option<ErrorCounter>>,
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
            log_lines_dropped_by: Mutex::default(),
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

    /// Counts nodes that a pod was kept from, by `FilterReason::index`.
    pub fn refused_nodes(&self, counts: &[usize; FilterReason::ALL.len()]) {
        add(&self.extender_refused_nodes, counts);
    }

    /// Counts nodes where a pod was kept from evicting others, by `PreemptionReason::index`.
    pub fn dropped_nodes(&self, counts: &[usize; PreemptionReason::ALL.len()]) {
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
    pub fn spans(&self, fate: SpanOutcome, spans: usize) {
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

    /// From when to when a certificate is good, in Unix time.
    pub fn certificate_valid(&self, certificate: CertificateKind, not_before: i64, not_after: i64) {
        self.certificate_expiration[certificate as usize].set(not_after as f64);
        self.certificate_not_before[certificate as usize].set(not_before as f64);
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

/// The table as a page of the documentation.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n`GET /metrics` on the metrics port. Labels have no values but these, and every series exists from the \
         start. This page is made from the table in `src/telemetry/metrics/`:\n`UPDATE_GOLDEN=1 cargo test --test offline \
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

#[cfg(test)]
mod tests {
    use super::*;

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
