//! The label by which a pod, a DaemonSet, a node or a namespace opts out of this program.

use std::collections::BTreeMap;

/// The label key; the value `true` opts the object out.
pub const OPT_OUT_LABEL: &str = "daemonset-warden.io/ignore";

/// Returns true if the labels opt their object out.
pub fn is_opted_out(labels: &BTreeMap<String, String>) -> bool {
    labels.get_key_value(OPT_OUT_LABEL).is_some_and(|(key, value)| opts_out(key, value))
}

/// Returns true if this label opts its object out. For callers that read labels one by one.
pub fn opts_out(key: &str, value: &str) -> bool {
    key == OPT_OUT_LABEL && value == "true"
}
