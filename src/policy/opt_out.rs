//! The label by which a pod, a DaemonSet, a node or a namespace opts out of this program.

use std::collections::BTreeMap;

/// The label key; the value `true` opts the object out.
pub const OPT_OUT_LABEL: &str = "daemonset-warden.io/ignore";

/// True if the labels opt their object out.
pub fn is_opted_out(labels: &BTreeMap<String, String>) -> bool {
    labels.get(OPT_OUT_LABEL).is_some_and(|value| value == "true")
}
