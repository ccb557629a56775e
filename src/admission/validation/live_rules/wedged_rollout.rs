//! `wedged-rollout`: a rolling update whose budget is used up before it begins.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{LiveData, LiveRule, nodes};
use crate::api::daemonset::ON_DELETE;
use crate::api::field::{Error, Path};
use crate::cache::DaemonSetId;
use crate::cache::node_info::NodeInfo;
use crate::daemonset::update_strategy::scaled;
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "wedged-rollout",
    default_level: Level::Warn,
    finds: "an update with maxUnavailable not above the number of nodes where the DaemonSet is down already",
    rationale: "Nodes without a Ready pod count against maxUnavailable, so the controller replaces no running pod, and the rollout does not end while those nodes are down. Raise maxUnavailable, or repair the nodes first.",
    source: "pkg/controller/daemon/update.go (`rollingUpdate`, `updatedDesiredNodeCounts`)",
    check,
};

fn check(data: &LiveData<'_>) -> Vec<Error> {
    let Some((id, known)) = data.known else { return Vec::new() };
    let strategy = data.daemon_set.spec.update_strategy().unwrap_or_default();
    // The controller rolls out new templates only, and a surge does not wait for the old pods.
    let rolls_out = strategy.kind != ON_DELETE
        && !data.daemon_set.spec.uses_surge()
        && known.daemon_set.spec.template != data.daemon_set.spec.template;
    if !rolls_out {
        return Vec::new();
    }
    let desired = data.matching.len();
    let max_unavailable = strategy.rolling_update.and_then(|rolling_update| rolling_update.max_unavailable);
    let max_unavailable = max_unavailable.unwrap_or(IntOrString::Int(1));
    let budget = scaled(&max_unavailable, desired);
    let down = data.matching.iter().filter(|(info, _)| !is_up(data, info, id)).count();
    // A DaemonSet that is down on every node has every pod replaced at once.
    if down < budget || down == 0 || down == desired {
        return Vec::new();
    }
    let detail = format!(
        "the DaemonSet is down on {down} of {} already, which uses it up: no pod that runs would be updated",
        nodes(desired)
    );
    vec![Error::invalid(
        Path::new("spec.updateStrategy.rollingUpdate.maxUnavailable"),
        &max_unavailable,
        detail,
    )]
}

fn is_up(data: &LiveData<'_>, info: &NodeInfo, id: DaemonSetId) -> bool {
    let mut pods = info.daemon_pods.iter().map(|pod| data.cluster.pod_by_id(*pod));
    pods.any(|pod| pod.has_landed_for(id) && pod.is_ready)
}
