//! Generates docs/metrics.md from the table of metrics, and fails if it differs.

use daemonset_warden::telemetry::metrics;

#[test]
fn the_page_is_made_from_the_table() {
    super::support::golden("docs/metrics.md", &metrics::markdown());
}
