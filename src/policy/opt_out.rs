//! The label by which objects opt out of everything that this program does.

use std::collections::BTreeMap;

/// The label by which pods and namespaces opt out of everything.
pub const IGNORE_LABEL: &str = "daemonset-warden.io/ignore";

/// Whether labels opt out of everything.
pub fn is_ignored(labels: &BTreeMap<String, String>) -> bool {
    labels.get(IGNORE_LABEL).is_some_and(|value| value == "true")
}
