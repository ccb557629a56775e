//! Taints that are removed while a node starts.

use k8s_openapi::api::core::v1::Taint;

use super::Policy;

/// Taints that go by themselves as a node starts: Kubernetes' own and the cloud provider's.
const STARTUP_TAINTS: [&str; 4] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/network-unavailable",
    "node.cloudprovider.kubernetes.io/uninitialized",
];

/// Whether a taint goes without anybody's doing, so that the daemon pod will be wanted once it has.
pub fn goes_by_itself(taint: &Taint, policy: &Policy) -> bool {
    STARTUP_TAINTS.contains(&taint.key.as_str()) || policy.reservation.startup_taints.contains(&taint.key)
}
