//! The labels that exempt objects: the one by which a pod, a DaemonSet, a node or a namespace opts out of this program, and the one
//! of the warden's own pods.

use std::collections::BTreeMap;

/// The label key; the value `true` opts the object out.
pub const OPT_OUT_LABEL: &str = "daemonset-warden.io/ignore";

/// The label of the warden's own pods in its namespace, as Helm charts set it.
const OWN_LABEL: (&str, &str) = ("app.kubernetes.io/name", "daemonset-warden");

/// Returns true if the labels are those of a pod of the warden. Any author can write them, so the namespace must be compared too.
pub fn has_own_label(labels: &BTreeMap<String, String>) -> bool {
    labels.get(OWN_LABEL.0).is_some_and(|value| value == OWN_LABEL.1)
}

/// Returns true if the labels opt their object out.
pub fn is_opted_out(labels: &BTreeMap<String, String>) -> bool {
    labels.get_key_value(OPT_OUT_LABEL).is_some_and(|(key, value)| opts_out(key, value))
}

/// Returns true if this label opts its object out. For callers that read labels one by one.
pub fn opts_out(key: &str, value: &str) -> bool {
    key == OPT_OUT_LABEL && value == "true"
}
