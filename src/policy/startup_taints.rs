//! Taints that a controller removes while a node starts.

use k8s_openapi::api::core::v1::Taint;

use super::Policy;

/// Keys of the taints that Kubernetes and the cloud provider remove as a node starts.
const STARTUP_TAINTS: [&str; 4] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/network-unavailable",
    "node.cloudprovider.kubernetes.io/uninitialized",
];

/// Returns true if a controller removes this taint while the node starts: its key is well known, or in `reservation.startupTaints`.
/// A node with this taint will run a daemon pod that does not tolerate it, only later.
pub fn is_transient_taint(taint: &Taint, policy: &Policy) -> bool {
    STARTUP_TAINTS.contains(&taint.key.as_str()) || policy.reservation.startup_taints.contains(&taint.key)
}
