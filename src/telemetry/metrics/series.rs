//! The series of a row of the table: made once, found by the label's value without a hash.

use enum_map::EnumMap;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::MetricDefinition;
use super::labels::Label;

/// The upper bounds of the buckets, in seconds. An answer takes tens of microseconds, and the apiserver and the scheduler wait for
/// 10 s at most.
const DURATION_BUCKETS: [f64; 17] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0,
];

/// 5 µs to 1 s: a call of the scheduler holds the lock for tens of microseconds, and is to wait for less than ten milliseconds.
const LOCK_BUCKETS: [f64; 15] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.1, 0.25, 1.0,
];

/// 0.1 s to an hour: a refused pod waits for a second at least, and for `waitTimeout` at most.
const WAIT_BUCKETS: [f64; 13] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 1_200.0, 3_600.0];

fn names(definition: &MetricDefinition) -> Vec<&'static str> {
    definition.labels.iter().map(|(label, _)| *label).collect()
}

fn options(definition: &MetricDefinition) -> Opts {
    Opts::new(definition.name, definition.help)
}

// Registering fails for a bad name, a name twice, or labels that do not fit: all are constants of the table, and the
// test in `metrics` makes every one of them.
#[expect(clippy::expect_used, reason = "the table is constant and tested")]
fn register<T: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<T>) -> T {
    let metric = metric.expect("the table's names and labels are well formed");
    registry.register(Box::new(metric.clone())).expect("the table's names are unique");
    metric
}

/// Makes one series for each value of the metric's only label.
fn by_label<B: MetricVecBuilder, L: Label>(metric: &MetricVec<B>) -> EnumMap<L, B::M> {
    EnumMap::from_fn(|value: L| metric.with_label_values(&[value.into()]))
}

pub(super) fn counter(registry: &Registry, definition: &MetricDefinition) -> IntCounter {
    register(registry, IntCounter::with_opts(options(definition)))
}

pub(super) fn counters<L: Label>(
    registry: &Registry,
    definition: &MetricDefinition,
) -> EnumMap<L, IntCounter> {
    by_label(&counter_vec(registry, definition))
}

/// Registers a counter with several labels; for one label use [`counters`]. The caller makes each series by `with_label_values`,
/// with the values in the order of `definition.labels`; a series that is not made is not shown. Panics if the name is registered
/// already.
pub(super) fn counter_vec(registry: &Registry, definition: &MetricDefinition) -> IntCounterVec {
    register(registry, IntCounterVec::new(options(definition), &names(definition)))
}

pub(super) fn int_gauge(registry: &Registry, definition: &MetricDefinition) -> IntGauge {
    register(registry, IntGauge::with_opts(options(definition)))
}

pub(super) fn int_gauges<L: Label>(
    registry: &Registry,
    definition: &MetricDefinition,
) -> EnumMap<L, IntGauge> {
    by_label(&int_gauge_vec(registry, definition))
}

pub(super) fn int_gauge_vec(registry: &Registry, definition: &MetricDefinition) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(options(definition), &names(definition)))
}

pub(super) fn gauges<L: Label>(registry: &Registry, definition: &MetricDefinition) -> EnumMap<L, Gauge> {
    by_label(&register(registry, GaugeVec::new(options(definition), &names(definition))))
}

pub(super) fn histograms<L: Label>(
    registry: &Registry,
    definition: &MetricDefinition,
) -> EnumMap<L, Histogram> {
    let options = HistogramOpts::from(options(definition)).buckets(DURATION_BUCKETS.to_vec());
    by_label(&register(registry, HistogramVec::new(options, &names(definition))))
}

/// Makes a histogram of the time of an answer, without labels.
pub(super) fn histogram(registry: &Registry, definition: &MetricDefinition) -> Histogram {
    let options = HistogramOpts::from(options(definition)).buckets(DURATION_BUCKETS.to_vec());
    register(registry, Histogram::with_opts(options))
}

/// Registers a histogram of the time for which pods wait. The caller makes each series, as for [`counter_vec`].
pub(super) fn wait_histogram_vec(registry: &Registry, definition: &MetricDefinition) -> HistogramVec {
    let options = HistogramOpts::from(options(definition)).buckets(WAIT_BUCKETS.to_vec());
    register(registry, HistogramVec::new(options, &names(definition)))
}

/// Makes a histogram of the time for which a lock is held.
pub(super) fn lock_histogram(registry: &Registry, definition: &MetricDefinition) -> Histogram {
    let options = HistogramOpts::from(options(definition)).buckets(LOCK_BUCKETS.to_vec());
    register(registry, Histogram::with_opts(options))
}

/// Adds the counts to their series.
pub(super) fn add<L: Label>(series: &EnumMap<L, IntCounter>, counts: &EnumMap<L, usize>) {
    for (series, count) in series.values().zip(counts.values()) {
        // Most are 0, and an atomic write is not free.
        if *count > 0 {
            series.inc_by(*count as u64);
        }
    }
}
