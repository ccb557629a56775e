//! The series of a row of the table: made once, found by index.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::Definition;

/// 25 µs to 5 s: an answer takes tens of microseconds, the apiserver and the scheduler wait for 10 s at most.
const DURATION_BUCKETS: [f64; 17] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0,
];

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

pub(super) fn counters(registry: &Registry, definition: &Definition) -> Vec<IntCounter> {
    let metric = register(registry, IntCounterVec::new(options(definition), &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

pub(super) fn int_gauges(registry: &Registry, definition: &Definition) -> Vec<IntGauge> {
    let metric = register(registry, IntGaugeVec::new(options(definition), &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

pub(super) fn gauges(registry: &Registry, definition: &Definition) -> Vec<Gauge> {
    let metric = register(registry, GaugeVec::new(options(definition), &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

pub(super) fn histograms(registry: &Registry, definition: &Definition) -> Vec<Histogram> {
    let options = HistogramOpts::from(options(definition)).buckets(DURATION_BUCKETS.to_vec());
    let metric = register(registry, HistogramVec::new(options, &names(definition)));
    series(definition, |values| metric.with_label_values(values))
}

/// Counts by index.
pub(super) fn add(series: &[IntCounter], counts: &[usize]) {
    for (series, count) in series.iter().zip(counts) {
        // Most are 0, and an atomic write is not free.
        if *count > 0 {
            series.inc_by(*count as u64);
        }
    }
}
