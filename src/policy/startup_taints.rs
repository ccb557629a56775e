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

/// True for a taint that a controller will remove while the node starts: the node will run the daemon pod after that.
pub fn is_transient_taint(taint: &Taint, policy: &Policy) -> bool {
    STARTUP_TAINTS.contains(&taint.key.as_str()) || policy.reservation.startup_taints.contains(&taint.key)
}
