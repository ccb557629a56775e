//! docs/metrics.md must be the page made from the table of metrics.

use daemonset_warden::telemetry::metrics;

#[test]
fn the_page_is_made_from_the_table() {
    super::support::golden("docs/metrics.md", &metrics::markdown());
}
