//! docs/metrics.md says what the code does.

use daemonset_warden::telemetry::metrics;

#[test]
fn the_page_is_made_from_the_table() {
    super::support::golden("docs/metrics.md", &metrics::markdown());
}
